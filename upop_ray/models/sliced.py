"""What the sliced classes of all families share: a config that lists the kept width of each site."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from upop_ray.errors import CheckpointError
from upop_ray.models.loading import unfilled
from upop_ray.pruning.compress import resize, sliced_state
from upop_ray.pruning.site import Keep, Site, kept_counts

SlicedModel = TypeVar("SlicedModel", bound=PreTrainedModel)

#: entries of a config that belong to the class it came from, or to the files beside it
_OF_THE_CLASS = ("model_type", "architectures", "auto_map", "kept_units", "transformers_version")


def settings_of(config: PreTrainedConfig) -> dict[str, Any]:
    """Settings of a config that a config of another class of the same family can take."""
    return {name: value for name, value in config.to_dict().items() if name not in _OF_THE_CLASS}


def make_known(model: type[PreTrainedModel], *autos: Any) -> None:
    """Make a class of ours known to the Auto classes of transformers: to ``AutoModel``, and to those given."""
    config: Any = model.config_class
    AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto in (AutoModel, *autos):
        auto.register(config, model, exist_ok=True)


def narrow(model: nn.Module, sites: tuple[Site, ...], kept_units: Mapping[str, int] | None) -> dict[str, int]:
    """Give a dense model, in place, the widths that a sliced model's config lists; weights are new.

    :param kept_units: ``config.kept_units``; sites that it does not name stay whole
    :returns: the width of every site, by which the family sets what its attention reshapes with
    :raises CheckpointError: it names sites that the model lacks
    """
    unknown = set(kept_units or {}) - {site.name for site in sites}
    if unknown:
        raise CheckpointError(f"config.json: kept_units names sites the model lacks: {sorted(unknown)[:3]}")
    kept = {site.name: site.units for site in sites} | dict(kept_units or {})
    resize(model, sites, kept)
    return kept


def narrow_heads(model: nn.Module, sites: tuple[Site, ...], kept_units: Mapping[str, int] | None) -> None:
    """:func:`narrow`, where attention reshapes by ``head_dim`` and keeps the softmax scale of the dense width apart.

    :raises CheckpointError: as :func:`narrow`
    """
    kept = narrow(model, sites, kept_units)
    for site in sites:
        if site.kind == "attention":
            attention: Any = model.get_submodule(site.producers[0].module.rpartition(".")[0])
            attention.head_dim = kept[site.name]


def slice_into(
    target: type[SlicedModel],
    model: PreTrainedModel,
    state: Mapping[str, Tensor],
    sites: tuple[Site, ...],
    keep: Keep,
    adapt: Callable[[dict[str, Tensor]], None] = lambda state: None,
) -> SlicedModel:
    """The smaller model with the weights of ``state`` that ``keep`` leaves, in evaluation mode.

    :param target: the family's sliced class, whose ``config_class`` has ``kept_units``
    :param adapt: changes the sliced state dict in place, where the family computes with the kept width
    """
    settings = settings_of(model.config)
    config: PreTrainedConfig = target.config_class(**settings, kept_units=kept_counts(keep))  # type: ignore[misc]
    config._attn_implementation = model.config._attn_implementation
    sliced_weights = sliced_state(state, sites, keep)
    adapt(sliced_weights)
    sliced: SlicedModel = unfilled(target, config).to(next(iter(sliced_weights.values())).dtype)
    sliced.load_state_dict(sliced_weights)
    sliced.eval()
    return sliced
