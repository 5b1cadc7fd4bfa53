"""Statements about two images: swapped at random in training, as they are in evaluation."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from upop_ray.data.image_text import Tokenize
from upop_ray.data.images import Preprocessing, decode_distinct
from upop_ray.data.order import Cursor, Order
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import DataError

_COLUMNS = ("left", "right", "statement", "label")
_SWAPPED = 0.5
_OPPOSITE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class PairSplit:
    """A split held in memory.

    :param images: uint8 (images, 3, H, W), each distinct image once
    :param left: int64 (N,), the image on the left of each row
    :param right: int64 (N,)
    :param statements: N sentences
    :param labels: int64 (N,), 1 where the sentence is true of the two images
    """

    images: Tensor
    left: Tensor
    right: Tensor
    statements: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.statements)


@dataclass(frozen=True)
class PairBatch:
    """What a model sees of b rows.

    :param pixel_values: float32 (2b, 3, S, S), the first image of all rows, then the second
    :param input_ids: int64 (b, T)
    :param attention_mask: int64 (b, T)
    :param labels: int64 (b,)
    """

    pixel_values: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def load_pairs(dataset: ShardedDataset, split: str) -> PairSplit:
    """Read and decode a split.

    :raises DataError: see :meth:`ShardedDataset.split`; a split without rows, an image that cannot be decoded, or is of
        another size than the others
    """
    place = f"{dataset.root}, split {split}"
    table = dataset.split(split, columns=_COLUMNS)
    if table.num_rows == 0:
        raise DataError(f"{place}: has no rows")
    # of two columns, the right one after the left one
    images, numbers = decode_distinct(table["left"].to_pylist() + table["right"].to_pylist(), place)
    left, right = numbers.view(2, -1)
    labels = torch.tensor(table["label"].to_pylist()).long()
    return PairSplit(images, left, right, tuple(table["statement"].to_pylist()), labels)


def mirrored(statement: str) -> str:
    """Return a statement about two images as it is of the same images the other way round.

    >>> mirrored("The left image shows a bird, the right one its copyright.")
    'The right image shows a bird, the left one its copyright.'
    """
    return re.sub(r"\b(left|right)\b", _opposite, statement, flags=re.IGNORECASE)


def _opposite(word: re.Match[str]) -> str:
    found = word[0]
    other = _OPPOSITE[found.lower()]
    if found.isupper():
        return other.upper()
    return other.capitalize() if found[0].isupper() else other


@dataclass(frozen=True)
class PairBatches:
    """Deterministic training batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped.

    :param tokenize: see :data:`upop_ray.data.image_text.Tokenize`
    """

    split: PairSplit
    order: Order
    tokenize: Tokenize
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> PairBatch:
        """Return the part of a rank of a global batch; see :meth:`Order.step`.

        Half of the pairs are swapped, with the words left and right in their statements (as published).
        """
        step = self.order.step(cursor, rank, world_size)
        split, rows = self.split, torch.from_numpy(step.own)
        swapped = torch.from_numpy(step.draws.random(len(step.whole)) < _SWAPPED)[step.part]
        first = torch.where(swapped, split.right[rows], split.left[rows])
        second = torch.where(swapped, split.left[rows], split.right[rows])
        statements = [
            mirrored(split.statements[row]) if swap else split.statements[row]
            for row, swap in zip(rows.tolist(), swapped.tolist(), strict=True)
        ]
        # each call draws anew, so the images of a pair change independently
        pixels = [self.preprocessing.augmented(split.images[images], step) for images in (first, second)]
        return PairBatch(torch.cat(pixels), *self.tokenize(statements), split.labels[rows])

    def evaluation(self, split: PairSplit, rows: range) -> PairBatch:
        """Return these rows of a split in their order, without changes."""
        part = slice(rows.start, rows.stop)
        images = split.images[torch.cat([split.left[part], split.right[part]])]
        statements = list(split.statements[part])
        return PairBatch(self.preprocessing.prepare(images), *self.tokenize(statements), split.labels[part])
