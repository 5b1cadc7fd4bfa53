"""Segmenter: loader, sizes and registration; its classes lie in the files beside."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSemanticSegmentation, PreTrainedModel

from upop_ray.models.loading import load_folder, load_processor, with_image_size
from upop_ray.models.segmenter.modeling import Segmenter, SegmenterConfig
from upop_ray.models.segmenter.names import load_original
from upop_ray.models.segmenter.sliced import SlicedSegmenter, SlicedSegmenterConfig, segmenter_sites, sliced_segmenter
from upop_ray.models.sliced import make_known
from upop_ray.models.spec import ModelSpec, Size, Source
from upop_ray.models.vit_names import HEAD_WIDTH
from upop_ray.pruning.cost import count_macs, count_parameters

__all__ = ["SPEC", "Segmenter", "SegmenterConfig", "SlicedSegmenter", "SlicedSegmenterConfig", "register"]

_CLASSES_OF_IMAGENET = 1000
#: operations of one interpolated logit, as fvcore counts them
_INTERPOLATION = 4


def register() -> None:
    """Make the dense and the sliced Segmenter known to the Auto classes of transformers."""
    for model in (Segmenter, SlicedSegmenter):
        make_known(model, AutoModelForSemanticSegmentation)


def load_segmenter(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a Segmenter (dense, sliced before, or an original checkpoint) in fp32 with its image processor.

    :raises CheckpointError: the folder or file is missing, is no Segmenter, or lacks weights
    """
    types = (SegmenterConfig.model_type, SlicedSegmenterConfig.model_type)
    model = load_original(source.path) if source.path.is_file() else load_folder(AutoModel, source.path, types)
    processor = load_processor(source, text=False)
    return with_image_size(model, source.image_size, "vit.embeddings.position_embeddings", prefix=1), processor


def segmenter_example(model: nn.Module) -> dict[str, Tensor]:
    """One image, drawn from a fixed seed."""
    assert isinstance(model, Segmenter)
    side, channels = model.config.image_size, model.config.num_channels
    pixels = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": pixels.to(model.device)}


def segmenter_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Logits of all pixels."""
    return (model(**example).logits,)


def published_segmenter(width: int) -> Segmenter:
    """A Segmenter as published for ADE20K, with random weights: 12 layers of 64 wide heads, patches of 16 at 512."""
    config = SegmenterConfig(
        hidden_size=width,
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        num_labels=150,
        decoder_dropout=0.1,
    )
    return Segmenter(config)


def paper_size(model: nn.Module) -> Size:
    """With the backbone's classifier, which the paper's table counts and no forward pass uses."""
    assert isinstance(model, Segmenter)
    config = model.config
    head = (config.hidden_size + 1) * _CLASSES_OF_IMAGENET
    interpolated = _INTERPOLATION * config.num_labels * config.image_size**2
    return Size(
        count_parameters(model) + head,
        count_macs(model, segmenter_example(model)) + interpolated,
        "one image, its logits interpolated, and the unused 1000-class head of the backbone among the parameters",
    )


SPEC = ModelSpec(
    tasks=("segmentation",),
    load=load_segmenter,
    sites=segmenter_sites,
    sliced=sliced_segmenter,
    example=segmenter_example,
    outputs=segmenter_outputs,
    paper_attention_cost=12,
    backbone="encoder",
    published={
        "tiny": lambda: published_segmenter(192),
        "small": lambda: published_segmenter(384),
        "base": lambda: published_segmenter(768),
    },
    paper_size=paper_size,
)
