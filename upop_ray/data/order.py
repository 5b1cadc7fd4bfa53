"""Which examples a training step takes: a function of (seed, epoch, index) alone.

There is no state to save, a cursor is all that a resumed run needs, and every rank takes its part of the same global
batch whatever the world size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache

import numpy as np

from upop_ray.errors import ConfigError


class Use(IntEnum):
    """What random numbers are for: each use has a stream of its own.

    Seeds do not see a last 0, so 0 is the stream of (seed, epoch, index) alone.
    """

    STEP = 0
    NEGATIVES = 2
    BLOCKS = 3
    WINDOWS = 4


def generator(use: Use, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Return the random numbers for one use at one place of the training data."""
    return np.random.default_rng([seed, epoch, index, use])


@dataclass(frozen=True)
class Cursor:
    """A place in the training data: the batch to take next."""

    epoch: int = 0
    index: int = 0


@dataclass(frozen=True)
class Rows:
    """The examples of one step, which are the rows of a split unless its order says otherwise.

    :param whole: int64 (batch,), those of the global batch
    :param part: where the examples of this rank are in it
    :param draws: for whatever is drawn; every rank draws for the global batch and keeps its part, so that the world
        size changes nothing
    """

    whole: np.ndarray
    part: slice
    draws: np.random.Generator

    @property
    def own(self) -> np.ndarray:
        """The examples of this rank, int64 (batch / world size,)."""
        return self.whole[self.part]


class BatchOrder(ABC):
    """Examples in batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped."""

    batch_size: int
    seed: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _batch(self, cursor: Cursor) -> np.ndarray:
        """The examples of a global batch, int64 (batch,)."""

    def step(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> Rows:
        """Return the examples of a step: those of a rank are the `rank`-th of `world_size` contiguous equal parts.

        :raises ConfigError: the batch cannot be divided by the world size
        :raises IndexError: no such step in an epoch
        """
        size, index = self.batch_size, cursor.index
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        if size % world_size:
            problem = f"{size} cannot be divided by {world_size} workers"
            raise ConfigError("batch_size", problem, f"use a multiple of {world_size}")
        part = slice(rank * size // world_size, (rank + 1) * size // world_size)
        return Rows(self._batch(cursor), part, generator(Use.STEP, self.seed, cursor.epoch, index))


def _require_a_batch(batch_size: int, examples: int) -> None:
    if not 0 < batch_size <= examples:
        cure = f"use 1 to {examples}, the size of the training split"
        raise ConfigError("batch_size", f"got {batch_size}", cure)


@dataclass(frozen=True)
class Order(BatchOrder):
    """All rows of a split shuffled together, for splits that are in memory.

    :param rows: how many there are
    :param batch_size: the size of the global batch, over all ranks
    :param repeats: how often a row comes in an epoch, each time within the same batches (repeated augmentation); an
        epoch has the same number of steps nevertheless
    :raises ConfigError: there are fewer rows than a batch has
    """

    rows: int
    batch_size: int
    seed: int
    repeats: int = 1

    def __post_init__(self) -> None:
        _require_a_batch(self.batch_size, self.rows)

    def __len__(self) -> int:
        return self.rows // self.batch_size

    def _batch(self, cursor: Cursor) -> np.ndarray:
        first = cursor.index * self.batch_size
        places = np.arange(first, first + self.batch_size) // self.repeats
        return _shuffled(self.rows, self.seed, cursor.epoch)[places]


@lru_cache(maxsize=4)
def _shuffled(rows: int, seed: int, epoch: int) -> np.ndarray:
    """All rows in the order of an epoch; drawn once, not at every step."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


@dataclass(frozen=True)
class Shuffle:
    """How well a split that is read block by block is shuffled.

    :param lanes: pieces of the data that every batch is taken from, at most; see :class:`StreamOrder`
    :param buffer: rows of a lane that are shuffled together
    """

    lanes: int = 8
    buffer: int = 2048


@dataclass(frozen=True, eq=False)
class StreamOrder(BatchOrder):
    """An order for splits that are read block by block: shuffled widely, while few blocks are open at a time.

    In each epoch the blocks come in a new order. What follows is cut into `lanes` contiguous pieces of the same number
    of examples, and each is shuffled in consecutive windows of `buffer` rows. A batch takes the next examples of every
    lane, lane after lane: it does not depend on the world size, every rank has as many steps, and where the world size
    divides the number of lanes a rank opens the blocks of its own lanes alone. No example comes twice in an epoch; the
    incomplete rest of the lanes is another one in each epoch.

    :param blocks: rows of each block (row group), in the order of the split
    :param batch_size: the size of the global batch, over all ranks
    :param counts: int64 (rows,), examples of each row, if not one: those of a row are numbered one after the other,
        and spread over the window
    :param repeats: how often an example comes in an epoch, as in :class:`Order`
    :raises ConfigError: there are fewer examples than a batch has
    """

    blocks: tuple[int, ...]
    batch_size: int
    seed: int
    shuffle: Shuffle = Shuffle()
    counts: np.ndarray | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        _require_a_batch(self.batch_size, len(self._row_of))

    def __len__(self) -> int:
        return len(self._row_of) // self.lanes // (self.batch_size // self.lanes)

    @cached_property
    def lanes(self) -> int:
        """The largest number that divides the batch, up to `shuffle.lanes` and to what has a full window each."""
        most = min(self.shuffle.lanes, -(-sum(self.blocks) // self.shuffle.buffer))
        return max(lanes for lanes in range(1, most + 1) if self.batch_size % lanes == 0)

    def _batch(self, cursor: Cursor) -> np.ndarray:
        size = self.batch_size // self.lanes
        places = np.arange(cursor.index * size, (cursor.index + 1) * size) // self.repeats
        return _streamed(self, cursor.epoch)[:, places].ravel()

    @cached_property
    def _row_of(self) -> np.ndarray:
        """The row of each example, int64 (examples,)."""
        rows = np.arange(sum(self.blocks))
        return rows if self.counts is None else np.repeat(rows, self.counts)

    @cached_property
    def _bounds(self) -> np.ndarray:
        """The first example of each block, and the number of examples: int64 (blocks + 1,)."""
        return np.searchsorted(self._row_of, np.cumsum([0, *self.blocks]))

    def _laned(self, epoch: int) -> np.ndarray:
        """The examples of each lane before they are shuffled, int64 (lanes, examples of each)."""
        blocks = generator(Use.BLOCKS, self.seed, epoch).permutation(len(self.blocks))
        examples = np.concatenate([np.arange(self._bounds[b], self._bounds[b + 1]) for b in blocks])
        each = len(examples) // self.lanes
        return examples[: self.lanes * each].reshape(self.lanes, each)


@lru_cache(maxsize=2)
def _streamed(order: StreamOrder, epoch: int) -> np.ndarray:
    """The examples of each lane in the order of an epoch, int64 (lanes, examples of each)."""
    lanes = order._laned(epoch)
    draws = generator(Use.WINDOWS, order.seed, epoch)
    buffer, count = order.shuffle.buffer, len(lanes)
    # lanes come to the ends of their windows one after the other, so that blocks are not all opened at once
    shifts = [lane * buffer // count for lane in range(count)]
    return np.stack([
        lane[_windowed(order._row_of[lane], buffer, shift, draws)] for lane, shift in zip(lanes, shifts, strict=True)
    ])  # fmt: skip


def _windowed(rows: np.ndarray, buffer: int, shift: int, draws: np.random.Generator) -> np.ndarray:
    """Places of examples, shuffled within windows of `buffer` rows of which the first is `shift` rows short.

    The k examples of a row fall into k parts of its window, and rows keep to one half of the parts: so there is at
    least half a part between two of them.

    :param rows: int64 (examples,), the row of each, in runs
    """
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    run = np.cumsum(np.diff(rows, prepend=-1) != 0) - 1
    counts = np.diff(starts, append=len(rows))
    half, turn = draws.integers(2, size=len(starts)), draws.integers(counts)
    part = (np.arange(len(rows)) - starts[run] + turn[run]) % counts[run]
    key = (part + (half[run] + draws.random(len(rows))) / 2) / counts[run]
    return np.lexsort((key, (run + shift) // buffer))
