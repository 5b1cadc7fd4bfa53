"""Images with one class each."""

from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from upop_ray.data.images import decode, decode_all
from upop_ray.data.shards import MANIFEST_NAME, ShardedDataset
from upop_ray.errors import DataError

_COLUMNS = ("image", "class")


@dataclass(frozen=True)
class ClassSplit:
    """A split held in memory as it is stored; photographs are decoded when they are needed.

    :param contents: N image files
    :param classes: int64 (N,), places in the manifest's list
    :param place: names the split in errors
    """

    contents: tuple[bytes, ...]
    classes: Tensor
    place: str

    def __len__(self) -> int:
        return len(self.contents)

    @cached_property
    def pixels(self) -> Tensor:
        """All images decoded, which takes images of one size: uint8 (N, 3, H, W).

        :raises DataError: an image cannot be decoded, or is of another size than the others
        """
        return decode_all(self.contents, self.place)

    def image(self, row: int) -> Image.Image:
        """One image in RGB.

        :raises DataError: it cannot be decoded
        """
        return Image.fromarray(decode(self.contents[row], "RGB", f"{self.place}, row {row}"))


def class_names(dataset: ShardedDataset) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the manifest.

    :raises DataError: the manifest lists none, or one twice
    """
    names = dataset.manifest.get("classes")
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise DataError(f"{dataset.root}: {MANIFEST_NAME} must list the names of its classes, each once, as `classes`")
    return tuple(map(str, names))


def load_classes(dataset: ShardedDataset, split: str) -> ClassSplit:
    """Read a split; nothing is decoded yet.

    :raises DataError: see :func:`class_names` and :meth:`ShardedDataset.split`; a split without rows, or a class that
        is not listed
    """
    place = f"{dataset.root}, split {split}"
    table = dataset.split(split, columns=_COLUMNS)
    numbers = {name: number for number, name in enumerate(class_names(dataset))}
    names = [str(name) for name in table["class"].to_pylist()]
    if not names:
        raise DataError(f"{place}: has no rows")
    for row, name in enumerate(names):
        if name not in numbers:
            raise DataError(f"{place}, row {row}: class {name!r} is not among the `classes` of {MANIFEST_NAME}")
    return ClassSplit(tuple(table["image"].to_pylist()), torch.tensor([numbers[name] for name in names]), place)
