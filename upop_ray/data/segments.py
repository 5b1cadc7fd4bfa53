"""Images with a class for each pixel."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from upop_ray.data.classes import class_names
from upop_ray.data.images import opened
from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.splits import read_rows
from upop_ray.errors import DataError

#: in a map: no class is known
IGNORED = 255


@dataclass(frozen=True)
class SegmentedSplit:
    """A split; each row is an example.

    :param maps: PNG files of the class of each pixel of each image, or 255 where none is known
    :param classes: how many there are
    """

    pictures: Pictures
    maps: Pictures
    classes: int

    @property
    def examples_per_row(self) -> None:
        """Each row is an example."""

    def __len__(self) -> int:
        return len(self.pictures)

    def pixels(self, rows: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Images of one size, uint8 (rows, 3, H, W), and their maps, uint8 (rows, H, W).

        :raises DataError: an image or map that cannot be decoded or is of another size, or a map with other classes
        """
        rows = list(rows)
        images, found = self.pictures.pixels(rows), list(self._maps(rows))
        for row, classes in zip(rows, found, strict=True):
            self._check((images.shape[2], images.shape[3]), classes, row)
        return images, torch.from_numpy(np.stack(found))

    def pairs(self, rows: Iterable[int]) -> Iterator[tuple[Image.Image, Tensor]]:
        """Each image with its map, uint8 (H, W), of its own size.

        :raises DataError: as :meth:`pixels`
        """
        rows = list(rows)
        for row, image, classes in zip(rows, self.pictures.images(rows), self._maps(rows), strict=True):
            self._check((image.height, image.width), classes, row)
            yield image, torch.from_numpy(classes)

    def _maps(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        for row, content in zip(rows, self.maps.contents(rows), strict=True):
            yield np.array(opened(content, "L", self.maps.name(row)))

    def _check(self, size: tuple[int, int], classes: np.ndarray, row: int) -> None:
        place = self.pictures.name(row)
        if classes.shape != size:
            raise DataError(f"{place}: the image is {size}, its map {classes.shape}")
        wrong = classes[(classes != IGNORED) & (classes >= self.classes)]
        if len(wrong):
            problem = f"class {wrong.max()} of {self.classes} classes; count from 0, {IGNORED} means no class"
            raise DataError(f"{place}: {problem}")


def load_segments(dataset: ShardedDataset, split: str) -> SegmentedSplit:
    """Read a split: columns `image` and `segmentation`, a PNG of class indices.

    :raises DataError: see :func:`class_names` and :func:`read_rows`
    """
    _, (pictures, maps) = read_rows(dataset, split, (), ("image", "segmentation"))
    return SegmentedSplit(pictures, maps, len(class_names(dataset)))
