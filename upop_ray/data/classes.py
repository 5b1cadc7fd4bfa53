"""Images with one class each."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import MANIFEST_NAME, ShardedDataset
from upop_ray.data.splits import column_of, read_rows
from upop_ray.errors import DataError


@dataclass(frozen=True)
class ClassSplit:
    """A split; each row is an example.

    :param classes: int64 (rows,), places in the manifest's list
    """

    pictures: Pictures
    classes: Tensor

    @property
    def examples_per_row(self) -> None:
        """Each row is an example."""

    def __len__(self) -> int:
        return len(self.classes)


def class_names(dataset: ShardedDataset) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the manifest.

    :raises DataError: the manifest lists none, or one twice
    """
    names = dataset.manifest.get("classes")
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise DataError(f"{dataset.root}: {MANIFEST_NAME} must list the names of its classes, each once, as `classes`")
    return tuple(map(str, names))


def load_classes(dataset: ShardedDataset, split: str) -> ClassSplit:
    """Read a split: columns `image` and `class`.

    :raises DataError: see :func:`class_names` and :func:`read_rows`; a class that is not listed
    """
    table, (pictures,) = read_rows(dataset, split, ("class",))
    names = column_of(table, "class", pa.string(), pictures)
    numbers = pc.index_in(names, value_set=pa.array(class_names(dataset)))
    if numbers.null_count:
        row = pc.index(numbers.is_null(), True).as_py()
        name = names[row].as_py()
        raise DataError(f"{pictures.name(row)}: class {name!r} is not among the `classes` of {MANIFEST_NAME}")
    return ClassSplit(pictures, torch.from_numpy(numbers.to_numpy().astype(np.int64)))
