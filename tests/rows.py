"""The built-in experiment of each row of the paper's table on a few of its own examples; a point takes seconds."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from upop_ray.config import BUILTIN_EXPERIMENT, Experiment, parse
from upop_ray.data.checkpoints import BUILTIN_CHECKPOINTS
from upop_ray.data.shards import ShardedDataset, file_hash, open_dataset
from upop_ray.training.dense import DENSE

ROWS = ("clip", "blip_retrieval", "blip_caption", "blip_vqa", "blip_nlvr", "vit", "segmenter")
SHIPPED = {name.removeprefix("builtin:") for name in BUILTIN_CHECKPOINTS}
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
    model = root / f"model-{name}"
    if name not in SHIPPED and not model.exists():
        write_untrained(name, values["data"]["path"], model)
    if name not in SHIPPED:
        values["model"]["path"] = str(model)
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


def write_untrained(name: str, data: str, folder: Path) -> None:
    """The dense model of a row as its training starts from it."""
    torch.manual_seed(0)
    model, processor = DENSE[name](open_dataset(data))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


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
