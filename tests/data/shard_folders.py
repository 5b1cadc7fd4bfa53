"""Data sets of several shards with small row groups, in a folder or wherever their files are copied to."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.datasets import drawing
from upop_ray.data.shards import SCHEMA_VERSION, file_hash

#: rows of the row groups of each shard
SHARDS = ((5, 5, 3), (5, 2), (4, 5, 5, 1))
ROWS = sum(map(sum, SHARDS))
CONTENTS = [drawing(row) for row in range(ROWS)]


def write_shards(folder: Path, listed: bool = True, split: str = "train") -> Path:
    """A split with `image` (row r is drawing r), `number` and `captions`; `listed`: row groups are in the manifest."""
    files, first = [], 0
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    for number, sizes in enumerate(SHARDS):
        path = folder / "shards" / f"{split}-{number}.parquet"
        table = rows(first, sum(sizes))
        with pq.ParquetWriter(path, table.schema, compression="none", write_page_checksum=True) as writer:
            for size in sizes:
                writer.write_table(table.slice(0, size), row_group_size=size)
                table = table.slice(size)
        first += sum(sizes)
        entry = {"path": f"shards/{path.name}", "split": split, "sha256": file_hash(path.read_bytes())}
        facts = {"rows": sum(sizes), "bytes": path.stat().st_size, "row_groups": list(sizes)} if listed else {}
        files.append(entry | facts)
    (folder / "manifest.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "files": files}))
    return folder


def rows(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    captions = [[f"caption {place} of {number}" for place in range(number % 3)] for number in numbers]
    return pa.table({"image": CONTENTS[first : first + count], "number": numbers, "captions": captions})
