"""A sliced model in the dense shape of transformers' own class: what was removed is zero.

Where the units of a site lie does not matter, so kept ones come first in each head and zeros follow. It computes what
the sliced model computes, and is neither smaller nor faster than the dense one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from upop_ray.errors import ConfigError
from upop_ray.models import MODELS
from upop_ray.models.loading import unfilled
from upop_ray.models.sliced import settings_of
from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.site import Site, Slot

#: families whose stock class computes something else, and what
_NOT_EXACT: Mapping[str, str] = {
    "blip_vqa": "answers of transformers' BlipForQuestionAnswering look at the padding of questions",
    "blip_nlvr": "transformers has no BLIP-NLVR2",
    "segmenter": "transformers has no Segmenter",
}
#: of BlipRetrieval alone; no score of the stock class reads it
_TEMPERATURE = "temperature"


def require_stock(family: str) -> None:
    """Make sure that a stock class computes what the family's sliced class does.

    :raises ConfigError: none does; the message says why
    """
    if family in _NOT_EXACT:
        raise ConfigError(
            "--stock",
            f"{family} has no exact form in a class of transformers ({_NOT_EXACT[family]})",
            "leave it out: the export brings its own code",
        )


def padded(family: str, model: PreTrainedModel) -> PreTrainedModel:
    """The stock model that computes what a sliced one does, in evaluation mode.

    :raises ConfigError: there is none
    """
    require_stock(family)
    spec, target = MODELS[family], stock_class(model)
    stock: PreTrainedModel = unfilled(target, target.config_class(**settings_of(model.config)))
    stock.load_state_dict(_padded_state(spec, model, stock))
    return stock.eval()  # type: ignore[no-any-return]


def stock_class(model: PreTrainedModel) -> type[PreTrainedModel]:
    """The class of transformers that a class of ours is made of."""
    return next(each for each in type(model).__mro__ if _is_whole_model(each))


def _is_whole_model(candidate: type) -> bool:
    # BLIP's classes have bases of ours between them and transformers', which hold no layers
    return candidate.__module__.startswith("transformers.models.") and not candidate.__name__.endswith(
        "PreTrainedModel"
    )


def _padded_state(spec: ModelSpec, model: PreTrainedModel, stock: nn.Module) -> dict[str, Tensor]:
    state = {name: value for name, value in model.state_dict().items() if name != _TEMPERATURE}
    dense = {site.name: site.units for site in spec.sites(stock)}
    for site in spec.sites(model):
        units = dense[site.name]
        for slot in site.producers:
            for part in ("weight", "bias"):
                name = f"{slot.module}.{part}"
                if name in state:
                    state[name] = _filled(state[name], slot, site.units, units)
        for slot in site.consumers:
            name = f"{slot.module}.weight"
            state[name] = _filled(state[name].t(), slot, site.units, units).t().contiguous()
        _undo_softmax_scale(state, model, site, units)
    return state


def _filled(rows: Tensor, slot: Slot, kept: int, units: int) -> Tensor:
    """Rows (groups * kept, ...) as (groups * units, ...), zeros behind those of each group."""
    groups = rows.reshape(slot.groups, kept, *rows.shape[1:])
    empty = groups.new_zeros(slot.groups, units - kept, *rows.shape[1:])
    return torch.cat([groups, empty], 1).flatten(0, 1)


def _undo_softmax_scale(state: dict[str, Tensor], model: nn.Module, site: Site, units: int) -> None:
    """BLIP's text attention divides by the root of its width, which slicing has folded into the query."""
    query = site.producers[0].module
    if isinstance(model.get_submodule(query.rpartition(".")[0]), BlipTextSelfAttention):
        for name in (f"{query}.weight", f"{query}.bias"):
            state[name] = state[name] * (units / site.units) ** 0.5
