"""Images with the captions that a model is to write."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from torch import Tensor

from upop_ray.data.batches import Batches, own_places
from upop_ray.data.order import Cursor
from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.splits import TEXTS, Nested, column_of, read_rows, require_texts
from upop_ray.data.streams import column_names
from upop_ray.errors import DataError


@dataclass(frozen=True)
class CaptionSplit:
    """A split; in training each caption is an example, in evaluation all of an image are references.

    :param captions: of each row at least one
    """

    pictures: Pictures
    captions: Nested

    @property
    def examples_per_row(self) -> np.ndarray:
        """How many captions each row has, int64 (rows,)."""
        return self.captions.counts

    def __len__(self) -> int:
        return len(self.captions)


def load_captions(dataset: ShardedDataset, split: str) -> CaptionSplit:
    """Read a split: column `image`, and `label` or (without it) `captions`.

    Where a data set has labels, the label is the only caption: its `captions` say other things of the image as well.

    :raises DataError: see :func:`read_rows`; no such columns; an image without a caption
    """
    found = next((name for name in ("label", "captions") if name in column_names(dataset, split)), None)
    if found is None:
        raise DataError(
            f"{dataset.root}, split {split}: no column captions; captioning reads image, and label or captions"
        )
    table, (pictures,) = read_rows(dataset, split, (found,))
    if found == "label":
        captions = Nested.single(column_of(table, "label", pa.string(), pictures))
    else:
        captions = Nested.of(column_of(table, "captions", TEXTS, pictures))
    require_texts(captions, pictures.place)
    return CaptionSplit(pictures, captions)


@dataclass(frozen=True)
class CaptionBatch:
    """pixel_values float32 (b, 3, S, S), and b captions."""

    pixel_values: Tensor
    captions: list[str]


@dataclass(frozen=True)
class CaptionBatches(Batches[CaptionSplit]):
    """Captions with their images, augmented."""

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> CaptionBatch:
        """Return the part of a rank of a global batch; see :meth:`BatchOrder.step`."""
        step, captions = self.order.step(cursor, rank, world_size), self.split.captions
        pixels = self.views.training(self.split.pictures, captions.rows_of(step.own), step, own_places(step))
        return CaptionBatch(pixels, captions.take(step.own))
