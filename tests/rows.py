"""The built-in experiment of each row of the paper's table on a few of its own examples; a point takes seconds."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from upop_ray.config import BUILTIN_EXPERIMENT, Experiment, parse
from upop_ray.data.shards import ShardedDataset, file_hash, open_dataset

ROWS = ("clip", "blip_retrieval", "blip_caption", "blip_vqa", "blip_nlvr", "vit", "segmenter")
SIZES = {"train": 16, "val": 6, "test": 6}
#: what tasks read of a manifest beside its files
_FACTS = ("classes", "answers")


def row_values(name: str, root: Path, **parts: Any) -> dict[str, Any]:
    """Settings of a built-in experiment on little data under ``root``, with whole parts replaced or merged."""
    path = BUILTIN_EXPERIMENT.with_name(f"builtin_{name}.yaml")
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    data = root / f"data-{name}"
    if not data.exists():
        write_few(open_dataset(values["data"]["path"]), data)
    little: dict[str, Any] = {
        "store": str(root / "store"),
        "data": {"path": str(data)},
        "batch_size": 4,
        "report_steps": 2,
        "checkpoint_steps": 2,
        "epoch_steps": 4,
        "search": {"interval": 2, "learning_rate": 3e-4},
        "retrain": {"epochs": 1, "learning_rate": 1e-3},
        "replica": {"timeout": 120.0},
    }
    for change in (little, parts):
        for key, part in change.items():
            values[key] = {**values[key], **part} if isinstance(values.get(key), dict) else part
    return values


def row_experiment(name: str, root: Path, **parts: Any) -> Experiment:
    """The experiment of :func:`row_values`, validated."""
    return parse(row_values(name, root, **parts))


def write_few(dataset: ShardedDataset, folder: Path) -> None:
    """Rows from all over each split, as a data set of its own."""
    files = []
    (folder / "shards").mkdir(parents=True)
    for split, count in SIZES.items():
        table = dataset.split(split)
        path = folder / "shards" / f"{split}.parquet"
        pq.write_table(table.take(pa.array(range(0, len(table), len(table) // count)))[:count], path)
        files.append({"path": f"shards/{split}.parquet", "split": split, "sha256": file_hash(path.read_bytes())})
    facts = {name: dataset.manifest[name] for name in _FACTS if name in dataset.manifest}
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "name": "few", "files": files, **facts}))
