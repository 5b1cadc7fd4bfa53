"""Sites of a Segmenter, and its sliced class."""

from collections.abc import Mapping

from torch import Tensor, nn

from upop_ray.models.layers import Encoder, encoder_sites
from upop_ray.models.segmenter.modeling import Segmenter, SegmenterConfig
from upop_ray.models.sliced import narrow_heads, slice_into
from upop_ray.pruning.site import Keep, Site


class SlicedSegmenterConfig(SegmenterConfig):
    """Configuration of a sliced Segmenter: that of the dense one, and ``kept_units``, site name -> kept width."""

    model_type = "upop_segmenter"

    kept_units: dict[str, int] | None = None


class SlicedSegmenter(Segmenter):
    """A Segmenter whose attention heads and MLPs have the widths of ``config.kept_units``.

    Attention keeps the softmax scale of the original head width, so the model computes what the masked one does.
    """

    config_class = SlicedSegmenterConfig

    def __init__(self, config: SlicedSegmenterConfig) -> None:
        super().__init__(config)
        narrow_heads(self, segmenter_sites(self), config.kept_units)


def segmenter_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of a Segmenter, backbone first, attention before MLP in each layer; both belong to the vision tower."""
    assert isinstance(model, Segmenter)
    heads, patches = model.config.num_attention_heads, (model.config.image_size // model.config.patch_size) ** 2
    parts = (("vit.layers", "encoder", patches + 1), ("decoder.layers", "decoder", patches + model.config.num_labels))
    encoders = [
        Encoder(path, name, "vision", heads, tokens, attention="attention", out="o_proj")
        for path, name, tokens in parts
    ]
    return tuple(site for encoder in encoders for site in encoder_sites(model, encoder))


def sliced_segmenter(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedSegmenter:
    """The smaller Segmenter with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, Segmenter)
    return slice_into(SlicedSegmenter, model, state, segmenter_sites(model), keep)
