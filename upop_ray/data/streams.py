"""Splits of any size: texts in memory, images held there too or read row group by row group."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from upop_ray.data.cache import TableCache
from upop_ray.data.columns import joined
from upop_ray.data.folders import cache_root
from upop_ray.data.pictures import HeldPictures, Pictures
from upop_ray.data.reading import Reading
from upop_ray.data.row_groups import RowGroup, Shards, entries_of, row_groups
from upop_ray.data.shards import MANIFEST_NAME, ShardedDataset
from upop_ray.errors import DataError

#: bytes of open row groups in a process, beyond which those go that were used longest ago
_MOST_OPEN = 2 * 2**30
#: calls after which a row group that was not needed is closed: it belongs to a window that is over
_IDLE_CALLS = 32
IMAGE = ("image",)


class StreamedPictures(Pictures):
    """Images in the shards. Their row groups are opened when they are needed, and stay open while they are in use.

    Those of a folder are read from the files; those of a remote store are fetched once for all processes of a machine
    (:class:`upop_ray.data.cache.TableCache`). A copy in another process opens its own.
    """

    def __init__(self, groups: Sequence[RowGroup], column: str, shards: Shards, cache: TableCache, place: str) -> None:
        """Keep the places; nothing is read yet.

        :param groups: of a split, in order
        :param column: of image files
        """
        self.place, self._column = place, column
        self._groups, self._shards, self._cache = tuple(groups), shards, cache
        self._starts = np.cumsum([0, *(group.rows for group in groups)])
        self._forget()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_calls", "_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        if not rows:
            return []
        places = np.asarray(rows, dtype=np.int64)
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        columns = self._opened(np.unique(numbers).tolist())
        inside = (places - self._starts[numbers]).tolist()
        found = [columns[number][place].as_py() for number, place in zip(numbers.tolist(), inside, strict=True)]
        if None in found:
            raise DataError(f"{self.name(rows[found.index(None)])}: has no {self._column}")
        return found

    def _opened(self, numbers: Sequence[int]) -> Mapping[int, pa.ChunkedArray]:
        self._calls += 1
        missing = [number for number in numbers if number not in self._open]
        for number, column in zip(missing, self._shards.each(self._read, missing), strict=True):
            self._open[number] = column, self._calls
            self._bytes += column.nbytes
        for number in numbers:
            self._open[number] = self._open[number][0], self._calls
            self._open.move_to_end(number)
        self._close_others()
        return {number: self._open[number][0] for number in numbers}

    def _close_others(self) -> None:
        while True:
            number, (column, used) = next(iter(self._open.items()))
            if used == self._calls or (used > self._calls - _IDLE_CALLS and self._bytes <= _MOST_OPEN):
                return
            del self._open[number]
            self._bytes -= column.nbytes

    def _read(self, number: int) -> pa.ChunkedArray:
        group = self._groups[number]

        def fetch() -> pa.Table:
            return self._shards.read(group.shard, [self._column], [group.number])

        table = fetch() if self._shards.is_local else self._cache.get(self._name(group), fetch)
        column = table.column(0)
        if len(column) != group.rows:
            place = f"{self._shards.root}/{group.shard}, row group {group.number}"
            raise DataError(f"{place}: has {len(column)} rows, {MANIFEST_NAME} says {group.rows}; build it again")
        return _encoded(column, f"{self.place}, {self._column}")

    def _name(self, group: RowGroup) -> str:
        return hashlib.sha256(f"{group.sha256}/{group.number}/{self._column}".encode()).hexdigest()[:32]

    def _forget(self) -> None:
        # number of a row group -> its images, and the last call that needed them; in the order of these calls
        self._open: OrderedDict[int, tuple[pa.ChunkedArray, int]] = OrderedDict()
        self._calls = self._bytes = 0


def open_split(
    dataset: ShardedDataset, split: str, columns: Sequence[str], images: Sequence[str] = IMAGE
) -> tuple[pa.Table, tuple[Pictures, ...]]:
    """Read the texts and numbers of a split, and open its images.

    Images are read now, with the rest, where the data set is built in or the split is small
    (:attr:`Reading.memory_bytes`); otherwise when they are asked for.

    :param columns: all of them are read
    :param images: columns of image files
    :returns: the rows with `columns`, and the images of each of `images`
    :raises DataError: unknown split, missing column, missing or damaged shard; the message names the file
    """
    place = f"{dataset.root}, split {split}"
    if dataset.reading is None or _bytes_of(dataset, split) <= dataset.reading.memory_bytes:
        table = dataset.split(split, columns=[*columns, *images])
        held = tuple(HeldPictures(_encoded(table.column(name), f"{place}, {name}"), place) for name in images)
        return table.select(list(columns)), held
    return _streamed(dataset, split, columns, images)


def column_names(dataset: ShardedDataset, split: str) -> list[str]:
    """The columns of a split.

    :raises DataError: unknown split; missing or damaged shard
    """
    if dataset.reading is None:
        return list(dataset.split(split).column_names)
    return Shards(dataset).names(entries_of(dataset, split)[0]["path"])


def blocks_of(dataset: ShardedDataset, split: str) -> tuple[int, ...] | None:
    """The rows of each row group of a split; None for a built-in data set, which is always held in memory.

    :raises DataError: unknown split; missing or damaged shard
    """
    return None if dataset.reading is None else tuple(group.rows for group in row_groups(dataset, split))


def _bytes_of(dataset: ShardedDataset, split: str) -> int:
    shards = Shards(dataset)
    entries = entries_of(dataset, split)
    return sum(shards.each(lambda entry: entry.get("bytes") or shards.bytes(entry["path"]), entries))


def _streamed(
    dataset: ShardedDataset, split: str, columns: Sequence[str], images: Sequence[str]
) -> tuple[pa.Table, tuple[Pictures, ...]]:
    assert dataset.reading is not None
    shards, groups, place = Shards(dataset), row_groups(dataset, split), f"{dataset.root}, split {split}"
    # that images are there is seen at once, not in the middle of an epoch
    names = set(column_names(dataset, split))
    missing = sorted(set(images) - names)
    if missing:
        raise DataError(f"{place}: no column {', '.join(missing)}; it has {', '.join(sorted(names))}")
    rows = sum(group.rows for group in groups)
    table = _texts(shards, [entry["path"] for entry in entries_of(dataset, split)], columns, rows)
    # a table without columns has no rows either
    if columns and table.num_rows != rows:
        raise DataError(f"{place}: has {table.num_rows} rows, {MANIFEST_NAME} says {rows}; build it again")
    cache = _cache(dataset.reading)
    return table, tuple(StreamedPictures(groups, name, shards, cache, place) for name in images)


def _texts(shards: Shards, paths: Sequence[str], columns: Sequence[str], rows: int) -> pa.Table:
    if not columns:
        # Arrow forgets the number of rows of tables without columns when it joins them
        return pa.table({"none": pa.nulls(rows)}).select([])
    tables = shards.each(lambda path: shards.read(path, columns), paths)
    return joined(tables, [f"{shards.root}/{path}" for path in paths])


def _cache(reading: Reading) -> TableCache:
    return TableCache(reading.cache or cache_root() / "data", reading.cache_bytes)


def _encoded(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"{place}: holds {column.type}, not the bytes of image files")
    return column
