"""ViT and DeiT classifiers: site map, loader and sliced models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from upop_ray.errors import CheckpointError
from upop_ray.models.layers import Encoder, encoder_sites
from upop_ray.models.loading import load_folder, load_processor, with_image_size
from upop_ray.models.sliced import make_known, narrow_heads, slice_into
from upop_ray.models.spec import ModelSpec, Source
from upop_ray.models.vit_names import HEAD_WIDTH, LAYER_NORM_EPSILON, load_timm_vit
from upop_ray.pruning.site import Keep, Site


class SlicedViTConfig(ViTConfig):
    """Configuration of a sliced ViT: that of the dense one, and ``kept_units``, site name -> kept width."""

    model_type = "upop_vit"

    kept_units: dict[str, int] | None = None


class SlicedDeiTConfig(DeiTConfig):
    """Configuration of a sliced DeiT: that of the dense one, and ``kept_units``, site name -> kept width."""

    model_type = "upop_deit"

    kept_units: dict[str, int] | None = None


class SlicedViTForImageClassification(ViTForImageClassification):
    """A ViT whose attention heads and MLPs have the widths of ``config.kept_units``.

    Attention keeps the softmax scale of the original head width, so the model computes what the masked one does.
    """

    config_class = SlicedViTConfig

    def __init__(self, config: SlicedViTConfig) -> None:
        super().__init__(config)
        narrow_heads(self, vit_sites(self), config.kept_units)


class SlicedDeiTForImageClassification(DeiTForImageClassification):
    """A DeiT with distillation token, sliced as :class:`SlicedViTForImageClassification`."""

    config_class = SlicedDeiTConfig

    def __init__(self, config: SlicedDeiTConfig) -> None:
        super().__init__(config)
        narrow_heads(self, vit_sites(self), config.kept_units)


#: dense class -> (tokens before the patches, sliced class)
_CLASSES: Mapping[type[PreTrainedModel], tuple[int, type[PreTrainedModel]]] = {
    ViTForImageClassification: (1, SlicedViTForImageClassification),
    DeiTForImageClassification: (2, SlicedDeiTForImageClassification),
}


def register() -> None:
    """Make the sliced models known to the Auto classes of transformers; ``AutoModel`` gives them with their head."""
    for model in (SlicedViTForImageClassification, SlicedDeiTForImageClassification):
        make_known(model, AutoModelForImageClassification)


def load_vit(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a classifier in fp32 with its image processor: a folder (dense or sliced before), or a file of timm's names.

    :raises CheckpointError: the checkpoint is missing, is no ViT or DeiT with one classifier, or lacks weights
    """
    model = load_timm_vit(source.path) if source.path.is_file() else _load_folder(source.path)
    processor = load_processor(source, text=False)
    positions = f"{model.base_model_prefix}.embeddings.position_embeddings"
    return with_image_size(model, source.image_size, positions, prefix=_class_of(model)[0]), processor


def _load_folder(path: Path) -> PreTrainedModel:
    types = (ViTConfig, DeiTConfig, SlicedViTConfig, SlicedDeiTConfig)
    model = load_folder(AutoModelForImageClassification, path, tuple(each.model_type for each in types))
    # what a config calls for may have two classifiers
    if not isinstance(model, ViTForImageClassification | DeiTForImageClassification):
        raise CheckpointError(
            f"model.path: {path} holds a {type(model).__name__}, which is not supported; "
            "give a ViT or DeiT with one classifier"
        )
    return model


def vit_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of a ViT or DeiT, attention before MLP in each layer."""
    assert isinstance(model, PreTrainedModel)
    tokens = _class_of(model)[0] + model.base_model.embeddings.patch_embeddings.num_patches
    layers, heads = f"{model.base_model_prefix}.layers", model.config.num_attention_heads
    encoder = Encoder(layers, "vision", "vision", heads, tokens, attention="attention", out="o_proj")
    return tuple(encoder_sites(model, encoder))


def sliced_vit(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> PreTrainedModel:
    """The smaller classifier with the weights of ``state`` that ``keep`` leaves; it tells the same classes apart."""
    assert isinstance(model, PreTrainedModel)
    return slice_into(_class_of(model)[1], model, state, vit_sites(model), keep)


def vit_example(model: nn.Module) -> dict[str, Tensor]:
    """One image, drawn from a fixed seed."""
    patches: Any = model.base_model.embeddings.patch_embeddings  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, patches.num_channels, *patches.image_size, generator=generator)
    return {"pixel_values": pixels.to(patches.projection.weight.device)}


def vit_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Logits of the classes."""
    return (model(**example).logits,)


def published_vit(layers: int, width: int) -> ViTForImageClassification:
    """A classifier of 1000 classes in the shape of ViT and DeiT at 224 pixels with patches of 16, random weights."""
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        layer_norm_eps=LAYER_NORM_EPSILON,
        num_labels=1000,
    )
    return ViTForImageClassification(config)


def _class_of(model: nn.Module) -> tuple[int, type[PreTrainedModel]]:
    return next(found for dense, found in _CLASSES.items() if isinstance(model, dense))


SPEC = ModelSpec(
    tasks=("classification",),
    load=load_vit,
    sites=vit_sites,
    sliced=sliced_vit,
    example=vit_example,
    outputs=vit_outputs,
    paper_attention_cost=12,
    published={
        "tiny": lambda: published_vit(12, 192),
        "small": lambda: published_vit(12, 384),
        "base": lambda: published_vit(12, 768),
        "large": lambda: published_vit(24, 1024),
    },
)
