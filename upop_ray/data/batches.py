"""What the training batches of all data sets share."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from upop_ray.data.order import BatchOrder, Order, Rows, StreamOrder
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.splits import Split
from upop_ray.data.streams import blocks_of
from upop_ray.data.views import Views

AnySplit = TypeVar("AnySplit", bound=Split)


@dataclass(frozen=True)
class Batches(Generic[AnySplit]):
    """Deterministic training batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped.

    :param split: what to train on
    :param order: which examples each step takes
    :param views: what the model sees of an image
    """

    split: AnySplit
    order: BatchOrder
    views: Views

    def __len__(self) -> int:
        return len(self.order)


def training_order(dataset: ShardedDataset, split: Split, batch_size: int, seed: int, repeats: int = 1) -> BatchOrder:
    """Return the order of the examples of a training split: by its row groups, unless it is built in.

    :param split: that of the data set's ``train``
    :param batch_size: the size of the global batch, over all ranks
    :raises ConfigError: the split has fewer examples than a batch
    """
    blocks = blocks_of(dataset, "train")
    if blocks is None or dataset.reading is None:
        return Order(len(split), batch_size, seed, repeats)
    return StreamOrder(blocks, batch_size, seed, dataset.reading.shuffle, split.examples_per_row, repeats)


def own_places(step: Rows) -> np.ndarray:
    """Where the examples of this rank are in the global batch, int64 (batch / world size,)."""
    return np.arange(len(step.whole))[step.part]
