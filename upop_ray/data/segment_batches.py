"""Training batches of images with a class for each pixel."""

from dataclasses import dataclass

from torch import Tensor

from upop_ray.data.order import BatchOrder, Cursor
from upop_ray.data.segment_changes import SegmentViews
from upop_ray.data.segments import SegmentedSplit


@dataclass(frozen=True)
class SegmentBatch:
    """pixel_values float32 (b, 3, S, S), and labels int64 (b, S, S) with 255 where no class is known."""

    pixel_values: Tensor
    labels: Tensor


@dataclass(frozen=True)
class SegmentBatches:
    """Deterministic training batches; `len()` is the number of steps of an epoch.

    :param split: what to train on
    :param order: which rows each step takes
    :param views: what the model sees of an image and its map
    """

    split: SegmentedSplit
    order: BatchOrder
    views: SegmentViews

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> SegmentBatch:
        """Return the part of a rank of a global batch; see :meth:`BatchOrder.step`."""
        return SegmentBatch(*self.views.training(self.split, self.order.step(cursor, rank, world_size)))
