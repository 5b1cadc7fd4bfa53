"""The dense ViT and Segmenter of the built-in data."""

from typing import Any

from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from upop_ray.data.shards import ShardedDataset
from upop_ray.models.segmenter.modeling import Segmenter, SegmenterConfig
from upop_ray.training.dense.warm import IMAGE_SIZE, VISION, pixel_statistics, warm_vision


def dense_vit(dataset: ShardedDataset) -> tuple[PreTrainedModel, Any]:
    """A ViT over the classes of the data set, warm from the built-in CLIP, and its image processor."""
    model = ViTForImageClassification(ViTConfig(**VISION, **_labels(dataset)))
    warm_vision(model, "vit")
    return model, image_processor()


def dense_segmenter(dataset: ShardedDataset) -> tuple[PreTrainedModel, Any]:
    """A Segmenter with patches of 8 pixels over the classes of the data set, and its image processor."""
    shape = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    shape |= {"image_size": IMAGE_SIZE, "patch_size": 8, "decoder_layers": 1}
    return Segmenter(SegmenterConfig(**shape, **_labels(dataset))), image_processor()


def image_processor() -> ViTImageProcessorPil:
    """Preprocessing at 64 pixels with the statistics that the vision tower knows."""
    mean, std = pixel_statistics()
    return ViTImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=mean, image_std=std)


def _labels(dataset: ShardedDataset) -> dict[str, Any]:
    names = dict(enumerate(dataset.manifest["classes"]))
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}
