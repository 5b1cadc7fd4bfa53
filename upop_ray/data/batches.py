"""What the training batches of all data sets share."""

from collections.abc import Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Order

Split = TypeVar("Split", bound=Sized)


@dataclass(frozen=True)
class ShuffledBatches(Generic[Split]):
    """Deterministic training batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped.

    :param split: what to train on
    :param preprocessing: what the model expects of images
    :param batch_size: the size of the global batch, over all ranks
    :param seed: of order, texts and augmentation
    :raises ConfigError: the split has fewer rows than a batch
    """

    split: Split
    preprocessing: Preprocessing
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        # fails here rather than at the first step
        _ = self.order

    @cached_property
    def order(self) -> Order:
        """Which rows each step takes."""
        return Order(len(self.split), self.batch_size, self.seed)

    def __len__(self) -> int:
        return len(self.order)
