"""What the splits of all tasks share: how they are read, and that an example need not be a row."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.streams import IMAGE, open_split
from upop_ray.errors import DataError


class Split(Protocol):
    """Examples of a task in the order of their rows; `len()` is the number of examples that an epoch passes over."""

    @property
    def pictures(self) -> Pictures:
        """The images of the rows."""

    @property
    def examples_per_row(self) -> np.ndarray | None:
        """How many examples each row has, int64 (rows,); None where each has one."""

    def __len__(self) -> int: ...


def read_rows(
    dataset: ShardedDataset, split: str, columns: Sequence[str], images: Sequence[str] = IMAGE
) -> tuple[pa.Table, tuple[Pictures, ...]]:
    """Read columns of a split, and open its images; see :func:`open_split`.

    :raises DataError: see :func:`open_split`; the split has no rows
    """
    table, pictures = open_split(dataset, split, columns, images)
    if len(pictures[0]) == 0:
        raise DataError(f"{pictures[0].place}: has no rows")
    return table, pictures


#: a column of lists of texts
TEXTS = pa.list_(pa.string())


def column_of(table: pa.Table, name: str, kind: pa.DataType, pictures: Pictures) -> pa.ChunkedArray:
    """Return a column in the type that a task expects.

    :param pictures: those of the table, which know where they are
    :raises DataError: it holds something else, or a row has none
    """
    try:
        column = table[name].cast(kind)
    except pa.ArrowException as error:
        raise DataError(f"{pictures.place}: column {name} holds {table[name].type}, and should hold {kind}") from error
    if column.null_count:
        raise DataError(f"{pictures.name(pc.index(column.is_null(), True).as_py())}: has no {name}")
    return column


class Nested:
    """Values of which each row has some, kept in Arrow's memory: millions of them cost no Python objects.

    They are numbered through: those of the first row, then those of the second.
    """

    def __init__(self, values: pa.ChunkedArray, counts: np.ndarray) -> None:
        """Hold values.

        :param values: of all rows
        :param counts: int64 (rows,), how many of them are of each row
        """
        self.counts = counts
        self._values, self._ends = values.combine_chunks(), np.cumsum(counts)

    @classmethod
    def of(cls, lists: pa.ChunkedArray) -> "Nested":
        """The values of a column of lists."""
        return cls(pc.list_flatten(lists), pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64))

    @classmethod
    def single(cls, column: pa.ChunkedArray) -> "Nested":
        """A column as lists of one value each."""
        return cls(column, np.ones(len(column), np.int64))

    def __len__(self) -> int:
        return len(self._values)

    @property
    def values(self) -> pa.Array:
        """All values."""
        return self._values

    def rows_of(self, numbers: np.ndarray) -> np.ndarray:
        """The row of each of these values, int64 (values,)."""
        return np.searchsorted(self._ends, numbers, side="right")

    def take(self, numbers: np.ndarray) -> list[Any]:
        """These values as Python objects."""
        found: list[Any] = self._values.take(pa.array(numbers)).to_pylist()
        return found

    def row(self, row: int) -> list[Any]:
        """The values of a row as Python objects."""
        end = int(self._ends[row])
        found: list[Any] = self._values[end - int(self.counts[row]) : end].to_pylist()
        return found

    def __iter__(self) -> Iterator[list[Any]]:
        """The values of one row after the other."""
        return map(self.row, range(len(self.counts)))


def require_texts(captions: Nested, place: str) -> None:
    """Make sure that each row has a caption, and that none is empty.

    :raises DataError: a row has none, or an empty one
    """
    empty = pc.fill_null(pc.equal(pc.utf8_length(captions.values), 0), True).to_numpy(zero_copy_only=False)
    wrong = [*np.flatnonzero(captions.counts == 0)[:1], *captions.rows_of(np.flatnonzero(empty)[:1])]
    if wrong:
        raise DataError(f"{place}, row {min(wrong)}: an empty caption, or none; remove the row or write one")
