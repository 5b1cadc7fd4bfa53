"""Images with captions: all of them or drawn anew in training, fixed in evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from upop_ray.data.batches import Batches, own_places
from upop_ray.data.order import Cursor, Rows
from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.splits import TEXTS, Nested, column_of, read_rows, require_texts
from upop_ray.data.streams import column_names
from upop_ray.data.views import Views
from upop_ray.errors import DataError

# texts -> (input_ids, attention_mask), both int64 (texts, T) with the same T for every call
Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]

_MAX_TAGS = 3


class Shown(Protocol):
    """What captions training shows; `len()` is the number of examples."""

    @property
    def examples_per_row(self) -> np.ndarray | None:
        """How many examples each row has, int64 (rows,); None where each has one."""

    def __len__(self) -> int: ...

    def rows_of(self, examples: np.ndarray) -> np.ndarray:
        """The row of each example, int64 (examples,)."""

    def texts(self, step: Rows) -> list[str]:
        """The captions of this rank's examples."""


@dataclass(frozen=True)
class WrittenCaptions:
    """Each caption of each image is an example (as published)."""

    captions: Nested

    @property
    def examples_per_row(self) -> np.ndarray:
        """How many captions each row has."""
        return self.captions.counts

    def __len__(self) -> int:
        return len(self.captions)

    def rows_of(self, examples: np.ndarray) -> np.ndarray:
        """The image of each caption."""
        return self.captions.rows_of(examples)

    def texts(self, step: Rows) -> list[str]:
        """The captions as they were written."""
        return self.captions.take(step.own)


@dataclass(frozen=True)
class DrawnCaptions:
    """Each image is an example, with a caption drawn anew from its name and keywords.

    :param labels: the name of each row
    :param tags: keywords of each row
    """

    labels: pa.ChunkedArray
    tags: Nested

    @property
    def examples_per_row(self) -> None:
        """Each row is an example."""

    def __len__(self) -> int:
        return len(self.labels)

    def rows_of(self, examples: np.ndarray) -> np.ndarray:
        """The examples themselves."""
        return examples

    def texts(self, step: Rows) -> list[str]:
        """Drawn for the global batch, so that ranks agree."""
        return [self._text(int(row), step.draws) for row in step.whole][step.part]

    def _text(self, row: int, draws: np.random.Generator) -> str:
        return draw_caption(self.labels[row].as_py(), tuple(self.tags.row(row)), draws)


@dataclass(frozen=True)
class ImageTextSplit:
    """A split.

    :param identity: int64 (rows,), equal for images that are positives of each other's captions
    :param shown: the captions of training
    :param captions: the fixed captions of each row, for evaluation; a training split may have none
    """

    pictures: Pictures
    identity: Tensor
    shown: Shown
    captions: Nested

    @property
    def examples_per_row(self) -> np.ndarray | None:
        """How many examples each row has, int64 (rows,); None where each has one."""
        return self.shown.examples_per_row

    def __len__(self) -> int:
        return len(self.shown)


@dataclass(frozen=True)
class ImageTextBatch:
    """pixel_values float32 (b, 3, S, S), input_ids and attention_mask int64 (b, T), identity int64 (b,)."""

    pixel_values: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    identity: Tensor


def load_image_text(dataset: ShardedDataset, split: str) -> ImageTextSplit:
    """Read a split: columns `image`, `captions`, and `concept` or (without it) `image_id`.

    Images of one concept, or of one id, are positives of each other's captions. Where there are columns `label` and
    `tags`, training draws captions from them; otherwise each of `captions` is an example.

    :raises DataError: see :func:`read_rows`; an image without a caption
    """
    known = column_names(dataset, split)
    identified = "concept" if "concept" in known else "image_id"
    drawn = ("label", "tags") if {"label", "tags"} <= set(known) else ()
    table, (pictures,) = read_rows(dataset, split, (identified, "captions", *drawn))
    names = np.array(column_of(table, identified, pa.string(), pictures).to_pylist())
    identity = torch.from_numpy(np.unique(names, return_inverse=True)[1])
    captions = Nested.of(column_of(table, "captions", TEXTS, pictures))
    return ImageTextSplit(pictures, identity, _shown(table, captions, pictures), captions)


def _shown(table: pa.Table, captions: Nested, pictures: Pictures) -> Shown:
    if "tags" in table.column_names:
        tags = Nested.of(column_of(table, "tags", TEXTS, pictures))
        return DrawnCaptions(column_of(table, "label", pa.string(), pictures), tags)
    require_texts(captions, pictures.place)
    return WrittenCaptions(captions)


@dataclass(frozen=True)
class FixedLength:
    """The `tokenize` of a transformers tokenizer, padded and cut to `length` so that ranks agree on it.

    A tokenizer that gives no attention mask, as that of SigLIP, wants its padding looked at: the mask is 1 throughout.

    :param start: token that takes the place of the tokenizer's own first one, if any
    :param clean: what is done to a text before
    """

    tokenizer: Any
    length: int
    start: int | None = None
    clean: Callable[[str], str] = str

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        encoded = self.tokenizer(
            [self.clean(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        ids: Tensor = encoded["input_ids"]
        if self.start is not None:
            ids[:, 0] = self.start
        return ids, encoded["attention_mask"] if "attention_mask" in encoded else torch.ones_like(ids)


@dataclass(frozen=True)
class ImageTextBatches(Batches[ImageTextSplit]):
    """Images with captions, as tokens.

    :param tokenize: see :data:`Tokenize`
    """

    tokenize: Tokenize

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> ImageTextBatch:
        """Return the part of a rank of a global batch; see :meth:`BatchOrder.step`."""
        step, split = self.order.step(cursor, rank, world_size), self.split
        texts, rows = split.shown.texts(step), split.shown.rows_of(step.own)
        pixels = self.views.training(split.pictures, rows, step, own_places(step))
        return ImageTextBatch(pixels, *self.tokenize(texts), split.identity[torch.from_numpy(rows)])


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
    views: Views
    input_ids: Tensor
    attention_mask: Tensor
    caption_image: Tensor

    def __len__(self) -> int:
        """The number of images."""
        return len(self.split.pictures)

    def images(self, rows: range) -> Tensor:
        """Model inputs of these images, float32 (rows, 3, S, S)."""
        return self.views.evaluation(self.split.pictures, rows)

    def text_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (input_ids, attention_mask), each (b, T), in the order of `caption_image`."""
        yield from zip(
            torch.split(self.input_ids, batch_size), torch.split(self.attention_mask, batch_size), strict=True
        )


def evaluation_pairs(split: ImageTextSplit, tokenize: Tokenize, views: Views) -> EvaluationPairs:
    """Tokenize the fixed captions of a split.

    :raises DataError: an image has no caption, as in the training split
    """
    if not split.captions.counts.all():
        raise DataError(
            f"{split.pictures.place}: an image without fixed captions cannot be evaluated; use an evaluation split, "
            "not the training split"
        )
    input_ids, attention_mask = tokenize(split.captions.values.to_pylist())
    caption_image = torch.repeat_interleave(torch.from_numpy(split.captions.counts))
    return EvaluationPairs(split, views, input_ids, attention_mask, caption_image)
