"""Images with a class for each pixel: drawn anew in training, as they are in evaluation."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from upop_ray.data.classes import class_names
from upop_ray.data.images import Preprocessing, decode_all
from upop_ray.data.order import Cursor, Order
from upop_ray.data.segment_changes import IGNORED, changed_drawings, changed_photographs
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import DataError

_COLUMNS = ("image", "segmentation")


@dataclass(frozen=True)
class SegmentedSplit:
    """A split held in memory.

    :param images: uint8 (N, 3, H, W)
    :param maps: uint8 (N, H, W), the class of each pixel, or 255 where none is known
    """

    images: Tensor
    maps: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, maps) in the order of the split; the last batch may be smaller."""
        yield from zip(torch.split(self.images, batch_size), torch.split(self.maps, batch_size), strict=True)


@dataclass(frozen=True)
class SegmentBatch:
    """pixel_values float32 (b, 3, S, S), and labels int64 (b, S, S) with 255 where no class is known."""

    pixel_values: Tensor
    labels: Tensor


def load_segments(dataset: ShardedDataset, split: str) -> SegmentedSplit:
    """Read and decode a split of images of one size.

    :raises DataError: see :meth:`ShardedDataset.split`; an image or map that cannot be decoded or is of another size,
        a map that holds no class indices, or a split in which no pixel has a class
    """
    place = f"{dataset.root}, split {split}"
    table = dataset.split(split, columns=_COLUMNS)
    contents = table["segmentation"].to_pylist()
    for row, content in enumerate(contents):
        _require_indices(content, f"{place}, row {row}")
    images = decode_all(table["image"].to_pylist(), place)
    maps = decode_all(contents, f"{place}, segmentation", "L")[:, 0]
    if maps.shape[1:] != images.shape[2:]:
        raise DataError(f"{place}: images are {tuple(images.shape[2:])}, their maps {tuple(maps.shape[1:])}")
    _require_classes(maps, len(class_names(dataset)), place)
    return SegmentedSplit(images, maps)


def _require_indices(content: bytes, place: str) -> None:
    try:
        mode = Image.open(io.BytesIO(content)).mode
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{place}: not a readable map: {error}") from error
    # a palette would be turned into the brightness of its colours
    if mode != "L":
        raise DataError(f"{place}: the map is a PNG of mode {mode}; write class indices as mode L")


def _require_classes(maps: Tensor, classes: int, place: str) -> None:
    known = maps != IGNORED
    wrong = (known & (maps >= classes)).flatten(1).any(1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        largest = int(maps[row][known[row]].max())
        raise DataError(
            f"{place}, row {row}: class {largest} of {classes} classes; count from 0, {IGNORED} means no class"
        )
    if not known.any():
        raise DataError(f"{place}: no pixel has a class")


@dataclass(frozen=True)
class SegmentBatches:
    """Deterministic training batches; `len()` is the number of steps of an epoch.

    :param split: what to train on
    :param order: which rows each step takes
    :param preprocessing: what the model expects; `image_size` is the side of the crops
    :param resize: range of the random scale of photographs, of the size that they have in the data
    """

    split: SegmentedSplit
    order: Order
    preprocessing: Preprocessing
    augmentation: Literal["photographs", "drawings"]
    resize: tuple[float, float]

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> SegmentBatch:
        """Return the part of a rank of a global batch; see :meth:`Order.step`."""
        step = self.order.step(cursor, rank, world_size)
        rows = torch.from_numpy(step.own)
        images, maps = self.split.images[rows], self.split.maps[rows]
        if self.augmentation == "drawings":
            return SegmentBatch(*changed_drawings(images, maps, step, self.preprocessing))
        return SegmentBatch(*changed_photographs(images, maps, step, self.preprocessing, self.resize))
