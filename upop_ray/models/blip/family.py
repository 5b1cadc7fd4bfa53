"""What the BLIP families share beside their layers: loading, slicing, published sizes, and the inputs of an example."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, BlipConfig, PreTrainedModel

from upop_ray.errors import CheckpointError
from upop_ray.models.blip.layers import fold_softmax_scale, set_head_widths
from upop_ray.models.blip.names import BlipKind, blip_checkpoint
from upop_ray.models.loading import (
    load_folder,
    load_named,
    load_processor,
    read_model_type,
    unfilled,
    with_image_size,
)
from upop_ray.models.sliced import SlicedModel, narrow, slice_into
from upop_ray.models.spec import Source
from upop_ray.pruning.site import Keep, Site

#: vision towers of the published models; text is BERT-base in both
_VISION = {
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}


class SlicedBlipConfig(BlipConfig):
    """Configuration of a sliced BLIP: that of the dense one, and ``kept_units``, site name -> kept width."""

    kept_units: dict[str, int] | None = None


def load_blip(
    source: Source, kind: BlipKind, dense: type[PreTrainedModel], sliced: type[PreTrainedModel]
) -> tuple[PreTrainedModel, Any]:
    """Load a BLIP in fp32 with its processor: a transformers folder, dense or sliced before, or an original file.

    :raises CheckpointError: it is missing, is another model, or lacks weights
    """
    if source.path.is_file():
        config, state = blip_checkpoint(source.path, kind)
        model = unfilled(dense, config).eval()
        load_named(model, state, source.path)
    else:
        targets = {BlipConfig.model_type: dense, sliced.config_class.model_type: sliced}
        target = targets[read_model_type(source.path, tuple(targets))]
        _require_architecture(target, source.path)
        model = load_folder(target, source.path, tuple(targets))
    processor = load_processor(source)
    positions = "vision_model.embeddings.position_embedding"
    return with_image_size(model, source.image_size, positions, prefix=1), processor


def narrow_blip(model: nn.Module, sites: tuple[Site, ...], kept_units: Mapping[str, int] | None) -> None:
    """:func:`~upop_ray.models.sliced.narrow`, where text attention reshapes by widths of its own.

    :raises CheckpointError: as there
    """
    set_head_widths(model, sites, narrow(model, sites, kept_units))


def slice_blip(
    target: type[SlicedModel], model: PreTrainedModel, state: Mapping[str, Tensor], sites: tuple[Site, ...], keep: Keep
) -> SlicedModel:
    """:func:`~upop_ray.models.sliced.slice_into`, with the softmax scale of text attention that of the dense width."""
    return slice_into(target, model, state, sites, keep, partial(fold_softmax_scale, sites=sites, keep=keep))


def text_length(model: nn.Module, tokens: int) -> int:
    """``tokens``, or as many as the model has positions for."""
    return min(tokens, int(model.config.text_config.max_position_embeddings))  # type: ignore[union-attr, arg-type]


def example_inputs(model: nn.Module, **lengths: int) -> dict[str, Tensor]:
    """One image as ``pixel_values``, and one row of token ids by the name of each length, drawn from a fixed seed."""
    assert isinstance(model, PreTrainedModel)
    vision, text = model.config.vision_config, model.config.text_config
    generator = torch.Generator().manual_seed(0)
    inputs = {"pixel_values": torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator)}
    for name, length in lengths.items():
        inputs[name] = torch.randint(text.vocab_size, (1, length), generator=generator)
    return {name: value.to(model.device) for name, value in inputs.items()}


def _require_architecture(target: type[PreTrainedModel], path: Path) -> None:
    # all dense BLIPs have one model_type; told before loading, which would list every weight of the other model
    architectures = set(AutoConfig.from_pretrained(path).architectures or ())
    fitting = {each.__name__ for each in target.__mro__}
    if architectures and not architectures & fitting:
        raise CheckpointError(
            f"model.path: {path} holds a {' '.join(sorted(architectures))}, model.family needs a {target.__name__}; "
            "choose the family of the checkpoint"
        )


def published_config(size: str, image_size: int) -> BlipConfig:
    """Configuration of a published BLIP.

    :param size: ``base`` (ViT-B/16) or ``large`` (ViT-L/16)
    """
    vision = _VISION[size] | {"image_size": image_size, "layer_norm_eps": 1e-6}
    return BlipConfig(vision_config=vision, text_config={"num_attention_heads": 12, "vocab_size": 30524})
