"""Parquet shards that stream well: images as they are, row groups of a stated size, a checksum for every page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class ShardWriter:
    """Rows to one Parquet file, of which one row group at a time is held in memory.

    Images are neither compressed nor put into dictionaries, which would gain nothing and cost time at every reading.

    :param row_group_bytes: a row group is closed when its images and texts have reached this size
    """

    def __init__(self, path: Path, schema: pa.Schema, row_group_bytes: int) -> None:
        texts = [
            path for field in schema for path, kind in _leaves(field.name, field.type) if not pa.types.is_binary(kind)
        ]
        self._schema, self._limit = schema, row_group_bytes
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression=dict.fromkeys(texts, "zstd"),
            use_dictionary=texts,
            write_statistics=texts,
            write_page_checksum=True,
        )
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0
        #: rows of the row groups that are closed
        self.row_groups: list[int] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self._rows.append(row)
        self._bytes += sum(len(value) for value in row.values() if isinstance(value, bytes | str))
        if self._bytes >= self._limit:
            self._close_group()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._rows:
            self._close_group()
        self._writer.close()

    def _close_group(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(table, row_group_size=len(self._rows))
        self.row_groups.append(len(self._rows))
        self._rows, self._bytes = [], 0


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Columns as Parquet stores them: `questions.list.element.answers.list.element`, and what each holds."""
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind
