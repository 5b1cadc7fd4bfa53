"""Which rows a training step takes: a function of (seed, epoch, index) alone.

There is no state to save, a cursor is all that a resumed run needs, and every rank takes its part of the same global
batch whatever the world size.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from upop_ray.errors import ConfigError


@dataclass(frozen=True)
class Cursor:
    """A place in the training data: the batch to take next."""

    epoch: int = 0
    index: int = 0

    def next(self, steps_per_epoch: int) -> "Cursor":
        """Return the place after this one."""
        last = self.index + 1 >= steps_per_epoch
        return Cursor(self.epoch + 1, 0) if last else Cursor(self.epoch, self.index + 1)


@dataclass(frozen=True)
class Rows:
    """The rows of one step.

    :param whole: int64 (batch,), those of the global batch
    :param part: where the rows of this rank are in it
    :param draws: for whatever is drawn; every rank draws for the global batch and keeps its part, so that the world
        size changes nothing
    """

    whole: np.ndarray
    part: slice
    draws: np.random.Generator

    @property
    def own(self) -> np.ndarray:
        """The rows of this rank, int64 (batch / world size,)."""
        return self.whole[self.part]


@dataclass(frozen=True)
class Order:
    """Shuffled rows in batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped.

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
        if not 0 < self.batch_size <= self.rows:
            cure = f"use 1 to {self.rows}, the size of the training split"
            raise ConfigError("batch_size", f"got {self.batch_size}", cure)

    def __len__(self) -> int:
        return self.rows // self.batch_size

    def step(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> Rows:
        """Return the rows of a step: those of a rank are the `rank`-th of `world_size` contiguous equal parts.

        :raises ConfigError: the batch cannot be divided by the world size
        :raises IndexError: no such step in an epoch
        """
        size, index = self.batch_size, cursor.index
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        if size % world_size:
            problem = f"{size} cannot be divided by {world_size} workers"
            raise ConfigError("batch_size", problem, f"use a multiple of {world_size}")
        shuffled = _shuffled(self.rows, self.seed, cursor.epoch)
        places = np.arange(index * size, (index + 1) * size) // self.repeats
        whole = shuffled[places]
        part = slice(rank * size // world_size, (rank + 1) * size // world_size)
        return Rows(whole, part, np.random.default_rng([self.seed, cursor.epoch, index]))


@lru_cache(maxsize=4)
def _shuffled(rows: int, seed: int, epoch: int) -> np.ndarray:
    """All rows in the order of an epoch; drawn once, not at every step."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
