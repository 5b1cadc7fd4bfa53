"""Statements about two images: swapped at random in training, as they are in evaluation."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from upop_ray.data.batches import Batches, own_places
from upop_ray.data.image_text import Tokenize
from upop_ray.data.order import Cursor
from upop_ray.data.pictures import JoinedPictures, Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.splits import column_of, read_rows

_SWAPPED = 0.5
_OPPOSITE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class PairSplit:
    """A split; each row is an example.

    :param pictures: those on the left of the N rows, then those on the right
    :param statements: N sentences
    :param labels: int64 (N,), 1 where the sentence is true of the two images
    """

    pictures: Pictures
    statements: pa.ChunkedArray
    labels: Tensor

    @property
    def examples_per_row(self) -> None:
        """Each row is an example."""

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
    """Read a split: columns `left`, `right`, `statement` and `label`.

    :raises DataError: see :func:`read_rows`
    """
    table, (left, right) = read_rows(dataset, split, ("statement", "label"), ("left", "right"))
    labels = column_of(table, "label", pa.bool_(), left).to_numpy().astype(np.int64)
    statements = column_of(table, "statement", pa.string(), left)
    return PairSplit(JoinedPictures(left, right, ("left", "right")), statements, torch.from_numpy(labels))


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
class PairBatches(Batches[PairSplit]):
    """Pairs of images with statements, as tokens.

    :param tokenize: see :data:`upop_ray.data.image_text.Tokenize`
    """

    tokenize: Tokenize

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> PairBatch:
        """Return the part of a rank of a global batch; see :meth:`BatchOrder.step`.

        Half of the pairs are swapped, with the words left and right in their statements (as published).
        """
        step, split = self.order.step(cursor, rank, world_size), self.split
        swapped = (step.draws.random(len(step.whole)) < _SWAPPED)[step.part]
        left, right = step.own, step.own + len(split)
        statements = [
            mirrored(statement) if swap else statement
            for statement, swap in zip(_statements(split, step.own), swapped, strict=True)
        ]
        # each call draws anew, so the images of a pair change independently
        pixels = [
            self.views.training(split.pictures, rows, step, own_places(step))
            for rows in (np.where(swapped, right, left), np.where(swapped, left, right))
        ]
        return PairBatch(torch.cat(pixels), *self.tokenize(statements), split.labels[torch.from_numpy(step.own)])

    def evaluation(self, split: PairSplit, rows: range) -> PairBatch:
        """Return these rows of a split in their order, without changes."""
        own = np.arange(rows.start, rows.stop)
        pixels = self.views.evaluation(split.pictures, [*own, *(own + len(split))])
        return PairBatch(pixels, *self.tokenize(_statements(split, own)), split.labels[torch.from_numpy(own)])


def _statements(split: PairSplit, rows: np.ndarray) -> list[str]:
    return [split.statements[row].as_py() for row in rows.tolist()]
