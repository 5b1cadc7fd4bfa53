"""Row groups of Parquet shards: which there are, and columns of them from a folder or by ranges from a remote store."""

import itertools
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from upop_ray.data.fetching import fetch, file_system, is_local
from upop_ray.data.shards import MANIFEST_NAME, ShardedDataset
from upop_ray.errors import DataError

#: files or ranges of a remote store that are asked for at once
CONNECTIONS = 8
#: bytes between two ranges that are fetched as one: they take less time than a request
_GAP = 2**17


@dataclass(frozen=True)
class RowGroup:
    """A row group of a shard.

    :param shard: path in the data set
    :param sha256: of the whole shard
    :param number: its place in the shard, from 0
    """

    shard: str
    sha256: str
    number: int
    rows: int


def row_groups(dataset: ShardedDataset, split: str) -> tuple[RowGroup, ...]:
    """The row groups of a split in order, as the manifest lists them, or else as the shards' footers do.

    :raises DataError: unknown split; wrong sizes in the manifest; a footer cannot be read
    """
    entries = entries_of(dataset, split)
    shards = Shards(dataset)
    sizes = shards.each(lambda entry: _sizes(dataset, shards, entry), entries)
    return tuple(
        RowGroup(entry["path"], entry["sha256"], number, rows)
        for entry, found in zip(entries, sizes, strict=True)
        for number, rows in enumerate(found)
    )


def entries_of(dataset: ShardedDataset, split: str) -> list[Mapping[str, Any]]:
    """What the manifest says of the shards of a split, in order.

    :raises DataError: unknown split
    """
    if split not in dataset.splits:
        raise DataError(f"{dataset.root}: no split {split!r}; it has {', '.join(dataset.splits)}")
    return [entry for entry in dataset.manifest["files"] if entry["split"] == split]


def _sizes(dataset: ShardedDataset, shards: "Shards", entry: Mapping[str, Any]) -> list[int]:
    listed = entry.get("row_groups")
    if listed is None:
        footer = shards.footer(entry["path"])
        return [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    if not isinstance(listed, list) or not all(isinstance(rows, int) and rows >= 0 for rows in listed):
        place = f"{dataset.root}/{MANIFEST_NAME}: {entry['path']}"
        raise DataError(f"{place}: `row_groups` must list the rows of each row group, got {listed!r}")
    return listed


class Shards:
    """The Parquet files of a data set. Footers are read when they are needed, and kept; pages are checked when read.

    :ivar root: folder or URI of the data set
    """

    def __init__(self, dataset: ShardedDataset) -> None:
        self.root, self._options, self._columns = dataset.root, dict(dataset.storage_options), dataset.columns
        self._footers: dict[str, pq.FileMetaData] = {}
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the connections of this process."""
        return self.__dict__ | {"_opened": None}

    @property
    def is_local(self) -> bool:
        """Whether they lie in a folder of this machine."""
        return is_local(self._files)

    def each(self, function: Any, items: Sequence[Any]) -> list[Any]:
        """`function` of each item, several at once where they are fetched from afar."""
        if self.is_local or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(function, items))

    def bytes(self, path: str) -> int:
        """The size of a shard.

        :raises DataError: it is missing, or the store does not answer
        """
        return int(self._fetch(path, lambda: self._files.size(self._at(path))))

    def footer(self, path: str) -> pq.FileMetaData:
        """The footer of a shard.

        :raises DataError: it is missing, or no Parquet file
        """
        if path not in self._footers:
            with self._decoding(path):
                self._footers[path] = self._fetch(path, lambda: self._read_footer(path))
        return self._footers[path]

    def names(self, path: str) -> list[str]:
        """The columns of a shard, as they are to be asked for."""
        return self._columns.offered(self._stored_names(path))

    def read(self, path: str, columns: Sequence[str], numbers: Sequence[int] | None = None) -> pa.Table:
        """Columns of a shard, of the row groups with these numbers or of all; nothing else of it is read.

        :raises DataError: a column is missing, a page is damaged, the store does not answer; the message names the file
        """
        footer = self.footer(path)
        stored = self._columns.stored(columns, self._stored_names(path), self._uri(path))
        wanted = list(range(footer.num_row_groups) if numbers is None else numbers)
        source = self._at(path) if self.is_local else self._fetched(path, stored, wanted)
        with self._decoding(path), pq.ParquetFile(
            source, metadata=footer, memory_map=True, page_checksum_verification=True
        ) as file:  # fmt: skip
            table = file.read_row_groups(wanted, columns=stored, use_threads=False)
        return self._columns.named(table, columns)

    def _stored_names(self, path: str) -> list[str]:
        return list(self.footer(path).schema.to_arrow_schema().names)

    def _fetched(self, path: str, columns: Sequence[str], numbers: Sequence[int]) -> pa.BufferReader:
        """A file in memory that holds the chunks of these columns at their places; nothing lies between them."""
        ranges = list(_joined(sorted(_chunks(self.footer(path), set(columns), numbers))))
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        at = [self._at(path)] * len(ranges)
        contents = self._fetch(path, lambda: self._files.cat_ranges(at, starts, ends, on_error="raise"))
        # of what is never written, no memory is taken
        buffer = mmap.mmap(-1, max(ends, default=1))
        for (start, end), content in zip(ranges, contents, strict=True):
            if len(content) != end - start:
                raise DataError(f"{self._uri(path)}: cut off, {len(content)} bytes of {end - start}; upload it again")
            buffer[start:end] = content
        return pa.BufferReader(pa.py_buffer(buffer))

    def _read_footer(self, path: str) -> pq.FileMetaData:
        with self._files.open(self._at(path), "rb") as file:
            return pq.read_metadata(file)

    def _fetch(self, path: str, action: Any) -> Any:
        return fetch(self._files, self._uri(path), action)

    @contextmanager
    def _decoding(self, path: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            problem = " ".join(str(error).split())
            raise DataError(f"{self._uri(path)}: damaged: {problem}; fetch or build it again") from error

    @property
    def _files(self) -> fsspec.AbstractFileSystem:
        # connections do not live through a fork
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), file_system(self.root, self._options)[0]
        return self._opened[1]

    def _uri(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _at(self, path: str) -> str:
        return str(self._files._strip_protocol(self._uri(path)))


def _chunks(footer: pq.FileMetaData, columns: set[str], numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where the chunks of these columns begin and end in the file."""
    for number in numbers:
        group = footer.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            # a list or struct has several chunks, whose paths begin with its name
            if column.path_in_schema.split(".")[0] in columns:
                first = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
                yield first, first + column.total_compressed_size


def _joined(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted ranges, of which those close together are one."""
    breaks = [place for place in range(1, len(ranges)) if ranges[place][0] - ranges[place - 1][1] > _GAP]
    for first, last in itertools.pairwise([0, *breaks, len(ranges)]):
        if first < last:
            yield ranges[first][0], max(end for _, end in ranges[first:last])
