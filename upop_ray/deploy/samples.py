"""Real inputs of a model, on which what was exported is compared: built-in pictures and captions, as its processor
reads them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.data.images import opened, preprocessing_of, stacked
from upop_ray.data.shards import open_dataset

_SOURCE = "builtin:emoji"
_SPLIT = "test"
#: no more are drawn than a text of every family's tests has room for
_ANSWER_TOKENS = 6


def samples(family: str, model: nn.Module, processor: Any, count: int) -> dict[str, Tensor]:
    """Keyword arguments of a forward pass on ``count`` examples with texts of different lengths.

    :param family: as in ``model.family``
    """
    return _SAMPLES[family](model, processor, count)


def _pictures(model: nn.Module, processor: Any, count: int) -> Tensor:
    config: Any = model.config
    rows = open_dataset(_SOURCE).split(_SPLIT, ["image"])["image"].slice(0, count).to_pylist()
    images = stacked([opened(content, "RGB", _SOURCE) for content in rows], _SOURCE)
    size = getattr(config, "vision_config", config).image_size
    return preprocessing_of(processor, size).prepare(images)


def _captions(count: int) -> list[str]:
    labels: list[str] = open_dataset(_SOURCE).split(_SPLIT, ["label"])["label"].slice(0, count).to_pylist()
    # of different lengths, so that some are padded
    return [f"{label}, {label}" if row % 2 else label for row, label in enumerate(labels)]


def _texts(model: nn.Module, processor: Any, texts: list[str], room: int, padding: str = "longest") -> Any:
    config: Any = model.config
    length = min(room, config.text_config.max_position_embeddings)
    return processor.tokenizer(
        texts, padding=padding, padding_side="right", truncation=True, max_length=length, return_tensors="pt"
    )


def _contrastive(model: nn.Module, processor: Any, count: int) -> dict[str, Tensor]:
    config: Any = model.config
    room = config.text_config.max_position_embeddings
    texts = _texts(model, processor, _captions(count), room, padding="max_length")
    return {"pixel_values": _pictures(model, processor, count), "input_ids": texts["input_ids"]}


def _images(model: nn.Module, processor: Any, count: int) -> dict[str, Tensor]:
    return {"pixel_values": _pictures(model, processor, count)}


def _captioned(model: nn.Module, processor: Any, count: int) -> dict[str, Tensor]:
    texts = _texts(model, processor, _captions(count), 20)
    found = {name: texts[name] for name in ("input_ids", "attention_mask")}
    return {"pixel_values": _pictures(model, processor, count)} | found


@torch.no_grad()
def _retrieval(model: Any, processor: Any, count: int) -> dict[str, Tensor]:
    batch = _captioned(model, processor, count)
    return batch | {"image_states": model.vision_model(batch["pixel_values"]).last_hidden_state}


def _vqa(model: nn.Module, processor: Any, count: int) -> dict[str, Tensor]:
    answers = _texts(model, processor, _captions(count)[::-1], _ANSWER_TOKENS)
    found = {"answer_ids": answers["input_ids"], "answer_mask": answers["attention_mask"]}
    return _captioned(model, processor, count) | found | {"answer_rows": torch.arange(count)}


def _nlvr(model: nn.Module, processor: Any, count: int) -> dict[str, Tensor]:
    return _captioned(model, processor, count) | {"pixel_values": _pictures(model, processor, 2 * count)}


_SAMPLES: Mapping[str, Callable[[nn.Module, Any, int], dict[str, Tensor]]] = {
    "clip": _contrastive,
    "siglip": _contrastive,
    "vit": _images,
    "segmenter": _images,
    "blip_retrieval": _retrieval,
    "blip_caption": _captioned,
    "blip_vqa": _vqa,
    "blip_nlvr": _nlvr,
}
