"""How shards are stored, by pyarrow's own account of the file."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from upop_ray.data.converters.base import ASKED
from upop_ray.data.shard_writer import ShardWriter

ROWS: list[dict[str, Any]] = [
    {
        "image": bytes([number]) * 4000,
        "image_id": str(number),
        "questions": [{"question_id": "1", "question": "what?", "answers": ["a", "b"], "weights": [0.5, 0.25]}],
    }
    for number in range(7)
]


@pytest.fixture
def written(tmp_path: Path) -> pq.ParquetFile:
    """Seven rows of 4 kB in row groups of 10 kB."""
    writer = ShardWriter(tmp_path / "shard.parquet", ASKED, 10_000)
    for row in ROWS:
        writer.add(row)
    writer.close()
    assert writer.row_groups == [3, 3, 1]
    return pq.ParquetFile(tmp_path / "shard.parquet", page_checksum_verification=True)


def test_what_is_written_is_read(written: pq.ParquetFile) -> None:
    assert written.read().to_pylist() == ROWS
    assert [written.metadata.row_group(number).num_rows for number in range(3)] == [3, 3, 1]


def test_images_are_neither_compressed_nor_in_dictionaries_and_texts_are_both(written: pq.ParquetFile) -> None:
    columns = [written.metadata.row_group(0).column(number) for number in range(written.metadata.num_columns)]
    by_path = {column.path_in_schema: column for column in columns}
    image = by_path.pop("image")
    assert image.compression == "UNCOMPRESSED" and not image.has_dictionary_page and image.statistics is None
    assert len(by_path) == 5
    assert all(column.compression == "ZSTD" and column.has_dictionary_page for column in by_path.values())


@pytest.mark.parametrize("column", ["image", "image_id", "questions"])
def test_a_flipped_bit_in_a_page_is_found(written: pq.ParquetFile, tmp_path: Path, column: str) -> None:
    group = written.metadata.row_group(1)
    chunks = [group.column(number) for number in range(group.num_columns)]
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    content = bytearray((tmp_path / "shard.parquet").read_bytes())
    # the last byte of a chunk belongs to its last page's values
    content[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1] ^= 1
    (tmp_path / "damaged.parquet").write_bytes(content)
    damaged = pq.ParquetFile(tmp_path / "damaged.parquet", page_checksum_verification=True)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        damaged.read(columns=[column])
