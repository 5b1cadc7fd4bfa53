"""Images with captions: drawn anew in training, fixed in evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upop_ray.data.batches import ShuffledBatches
from upop_ray.data.images import Preprocessing, decode_all
from upop_ray.data.order import Cursor, Rows
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import DataError

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


def load_image_text(dataset: ShardedDataset, split: str) -> ImageTextSplit:
    """Read and decode a split.

    :raises DataError: see :meth:`ShardedDataset.split`; an image that cannot be decoded, or of another size
    """
    table = dataset.split(split, columns=_COLUMNS)
    concepts = table["concept"].to_pylist()
    ids = {concept: number for number, concept in enumerate(sorted(set(concepts)))}
    return ImageTextSplit(
        images=decode_all(table["image"].to_pylist(), f"{dataset.root}, split {split}"),
        concept_ids=torch.tensor([ids[concept] for concept in concepts]),
        labels=tuple(table["label"].to_pylist()),
        tags=tuple(map(tuple, table["tags"].to_pylist())),
        captions=tuple(map(tuple, table["captions"].to_pylist())),
    )


def fixed_length(tokenizer: Any, length: int) -> Tokenize:
    """Return the `tokenize` of a transformers tokenizer, padded and cut to `length` so that ranks agree on it.

    A tokenizer that gives no attention mask, as that of SigLIP, wants its padding looked at: the mask is 1 throughout.
    """

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids = encoded["input_ids"]
        return ids, encoded["attention_mask"] if "attention_mask" in encoded else torch.ones_like(ids)

    return tokenize


@dataclass(frozen=True)
class ImageTextBatches(ShuffledBatches[ImageTextSplit]):
    """Images with captions drawn anew, as tokens.

    :param tokenize: see :data:`Tokenize`
    :param augment: whether images are changed at random
    """

    tokenize: Tokenize
    augment: bool = True

    def batch(self, epoch: int, index: int, rank: int = 0, world_size: int = 1) -> ImageTextBatch:
        """Return the part of a rank of a global batch; see :meth:`Order.step`."""
        step = self.order.step(Cursor(epoch, index), rank, world_size)
        captions = [self._caption(int(row), step.draws) for row in step.whole][step.part]
        pixels = self._pixels(step)
        input_ids, attention_mask = self.tokenize(captions)
        return ImageTextBatch(pixels, input_ids, attention_mask, self.split.concept_ids[torch.from_numpy(step.own)])

    def _caption(self, row: int, draws: np.random.Generator) -> str:
        return draw_caption(self.split.labels[row], self.split.tags[row], draws)

    def _pixels(self, step: Rows) -> Tensor:
        images = self.split.images[torch.from_numpy(step.own)]
        return self.preprocessing.augmented(images, step) if self.augment else self.preprocessing.prepare(images)


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
