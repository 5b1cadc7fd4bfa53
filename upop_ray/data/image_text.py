"""Batches of images with captions: drawn anew in training, fixed in evaluation.

A training batch is a function of (seed, epoch, index) alone: there is no state to save, a cursor is all that a resumed
run needs, and every rank takes its part of the same global batch whatever the world size.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from upop_ray.data import augment
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import ConfigError, DataError

# texts -> (input_ids, attention_mask), both int64 (texts, T) with the same T for every call
Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]

_COLUMNS = ("image", "concept", "label", "tags", "captions")
_MAX_TAGS = 3


@dataclass(frozen=True)
class ImageTextSplit:
    """A split held in memory.

    :param images: uint8 (N, 3, H, W)
    :param concept_ids: int64 (N,), equal for images of one concept within this split
    :param labels: N names
    :param tags: N lists of keywords that training captions may show
    :param captions: N lists of fixed captions, empty in the training split
    """

    images: Tensor
    concept_ids: Tensor
    labels: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageTextBatch:
    """pixel_values float32 (b, 3, S, S), input_ids and attention_mask int64 (b, T), concept_ids int64 (b,)."""

    pixel_values: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    concept_ids: Tensor


@dataclass(frozen=True)
class Cursor:
    """A place in the training data: the batch to take next."""

    epoch: int = 0
    index: int = 0

    def next(self, steps_per_epoch: int) -> "Cursor":
        """Return the place after this one."""
        last = self.index + 1 >= steps_per_epoch
        return Cursor(self.epoch + 1, 0) if last else Cursor(self.epoch, self.index + 1)


def load_image_text(dataset: ShardedDataset, split: str) -> ImageTextSplit:
    """Read and decode a split.

    :raises DataError: see :meth:`ShardedDataset.split`; an image that cannot be decoded, or of another size
    """
    table = dataset.split(split, columns=_COLUMNS)
    concepts = table["concept"].to_pylist()
    ids = {concept: number for number, concept in enumerate(sorted(set(concepts)))}
    return ImageTextSplit(
        images=_decode_all(table, f"{dataset.root}, split {split}"),
        concept_ids=torch.tensor([ids[concept] for concept in concepts]),
        labels=tuple(table["label"].to_pylist()),
        tags=tuple(map(tuple, table["tags"].to_pylist())),
        captions=tuple(map(tuple, table["captions"].to_pylist())),
    )


def _decode_all(table: pa.Table, place: str) -> Tensor:
    images = [_decode(content, f"{place}, row {row}") for row, content in enumerate(table["image"].to_pylist())]
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        raise DataError(f"{place}: images must have one size, found {sorted(sizes)}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _decode(content: bytes, place: str) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{place}: not a readable image: {error}") from error


def fixed_length(tokenizer: Any, length: int) -> Tokenize:
    """Return the `tokenize` of a transformers tokenizer, padded and cut to `length` so that ranks agree on it."""

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return encoded["input_ids"], encoded["attention_mask"]

    return tokenize


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become model inputs.

    :param image_size: side in pixels
    :param mean: of each channel, for values in [0, 1]
    :param std: standard deviation of each channel, likewise
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map values in [0, 1], (b, 3, S, S), to what the model was trained on."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def prepare(self, images: Tensor) -> Tensor:
        """Map uint8 images (b, 3, H, W) to model inputs (b, 3, S, S), without augmentation."""
        pixels = images.float() / 255
        if pixels.shape[-1] != self.image_size or pixels.shape[-2] != self.image_size:
            size = (self.image_size, self.image_size)
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.normalise(pixels)


@dataclass(frozen=True)
class ImageTextBatches:
    """Deterministic training batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped.

    :param split: what to train on
    :param tokenize: see :data:`Tokenize`
    :param preprocessing: what the model expects
    :param batch_size: the size of the global batch, over all ranks
    :param seed: of order, captions and augmentation
    :raises ConfigError: the split has fewer rows than a batch
    """

    split: ImageTextSplit
    tokenize: Tokenize
    preprocessing: Preprocessing
    batch_size: int
    seed: int
    augment: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.batch_size <= len(self.split):
            cure = f"use 1 to {len(self.split)}, the size of the training split"
            raise ConfigError("batch_size", f"got {self.batch_size}", cure)

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def batch(self, epoch: int, index: int, rank: int = 0, world_size: int = 1) -> ImageTextBatch:
        """Return the part of a rank of a global batch: the `rank`-th of `world_size` contiguous equal parts.

        :param index: the step within the epoch, from 0 to `len(self) - 1`
        :raises ConfigError: the batch cannot be divided by the world size
        :raises IndexError: no such batch
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        if self.batch_size % world_size:
            problem = f"{self.batch_size} cannot be divided by {world_size} workers"
            raise ConfigError("batch_size", problem, f"use a multiple of {world_size}")
        rows = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        part = slice(rank * len(rows) // world_size, (rank + 1) * len(rows) // world_size)
        # every rank draws for the global batch and keeps its part, so that the world size changes nothing
        draws = np.random.default_rng([self.seed, epoch, index])
        captions = [self._caption(int(row), draws) for row in rows][part]
        pixels = self._pixels(torch.from_numpy(rows), part, draws)
        input_ids, attention_mask = self.tokenize(captions)
        return ImageTextBatch(pixels, input_ids, attention_mask, self.split.concept_ids[torch.from_numpy(rows[part])])

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.split))

    def _caption(self, row: int, draws: np.random.Generator) -> str:
        return draw_caption(self.split.labels[row], self.split.tags[row], draws)

    def _pixels(self, rows: Tensor, part: slice, draws: np.random.Generator) -> Tensor:
        if not self.augment:
            return self.preprocessing.prepare(self.split.images[rows[part]])
        changes = augment.draw(len(rows), draws)[part]
        images = augment.apply(self.split.images[rows[part]], changes, self.preprocessing.image_size)
        return self.preprocessing.normalise(images)


def draw_caption(label: str, tags: tuple[str, ...], draws: np.random.Generator) -> str:
    """Return the label, the label with one to three tags, or one to three tags alone, each as likely as the others."""
    kind, count = int(draws.integers(3)), int(draws.integers(1, _MAX_TAGS + 1))
    order = np.argsort(draws.random(len(tags)))
    chosen = [tags[place] for place in order[:count]]
    if kind == 0 or not chosen:
        return label
    return ", ".join([label, *chosen] if kind == 1 else chosen)


@dataclass(frozen=True)
class EvaluationPairs:
    """All images of a split with all their fixed captions.

    :param split: an evaluation split; every image has at least one caption
    :param input_ids: int64 (captions, T)
    :param attention_mask: int64 (captions, T)
    :param caption_image: int64 (captions,), the image that each caption belongs to
    """

    split: ImageTextSplit
    preprocessing: Preprocessing
    input_ids: Tensor
    attention_mask: Tensor
    caption_image: Tensor

    def __len__(self) -> int:
        return len(self.split)

    def image_batches(self, batch_size: int) -> Iterator[Tensor]:
        """Yield model inputs (b, 3, S, S) in the order of the split; the last batch may be smaller."""
        for images in torch.split(self.split.images, batch_size):
            yield self.preprocessing.prepare(images)

    def text_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (input_ids, attention_mask), each (b, T), in the order of `caption_image`."""
        yield from zip(
            torch.split(self.input_ids, batch_size), torch.split(self.attention_mask, batch_size), strict=True
        )


def evaluation_pairs(split: ImageTextSplit, tokenize: Tokenize, preprocessing: Preprocessing) -> EvaluationPairs:
    """Tokenize the fixed captions of a split.

    :raises DataError: an image has no caption, as in the training split
    """
    if not all(split.captions):
        raise DataError(
            "an image without fixed captions cannot be evaluated; use an evaluation split, not the training split"
        )
    input_ids, attention_mask = tokenize([caption for captions in split.captions for caption in captions])
    counts = torch.tensor([len(captions) for captions in split.captions])
    caption_image = torch.repeat_interleave(torch.arange(len(split)), counts)
    return EvaluationPairs(split, preprocessing, input_ids, attention_mask, caption_image)
