"""Small data sets in folders of their own."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from upop_ray.data.shards import SCHEMA_VERSION, ShardedDataset, file_hash, open_dataset


def write_dataset(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], **facts: Any) -> ShardedDataset:
    """Rows of each split as a data set, whose manifest says ``facts`` too."""
    files = []
    for split, rows in splits.items():
        path = folder / "shards" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        files.append({"path": f"shards/{split}.parquet", "split": split, "sha256": file_hash(path.read_bytes())})
    manifest = {"schema_version": SCHEMA_VERSION, "files": files} | facts
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_dataset(str(folder))


def drawing(seed: int, width: int = 8, height: int = 8) -> bytes:
    """A PNG of random pixels."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
