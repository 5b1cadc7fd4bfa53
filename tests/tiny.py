"""A tiny experiment on real built-in images, 48 + 12 + 12, with a CLIP of one layer a tower; a point takes seconds."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoProcessor, CLIPConfig, CLIPModel

from upop_ray.config import Experiment, parse
from upop_ray.data.checkpoints import BUILTIN_CHECKPOINTS
from upop_ray.data.shards import file_hash, open_dataset

SIZES = {"train": 48, "val": 12, "test": 12}


def write_data(folder: Path) -> Path:
    """The first rows of each built-in split as a data set of its own."""
    source = open_dataset("builtin:emoji")
    files = []
    for split, rows in SIZES.items():
        path = folder / "shards" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(source.split(split).slice(0, rows), path)
        entry = {"path": f"shards/{split}.parquet", "split": split, "rows": rows}
        files.append(entry | {"bytes": path.stat().st_size, "sha256": file_hash(path.read_bytes())})
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "name": "tiny", "files": files}))
    return folder


def write_model(folder: Path) -> Path:
    """A random CLIP of one layer a tower with the built-in tokenizer."""
    processor = AutoProcessor.from_pretrained(BUILTIN_CHECKPOINTS["builtin:clip"])
    dense = CLIPConfig.from_pretrained(BUILTIN_CHECKPOINTS["builtin:clip"]).to_dict()
    layer = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=dense["text_config"] | layer,
        vision_config=dense["vision_config"] | layer | {"patch_size": 32},
        projection_dim=16,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_values(root: Path, **parts: Any) -> dict[str, Any]:
    """Settings of the tiny experiment under ``root``, with whole parts replaced or merged."""
    data, model = root / "data", root / "model"
    if not data.exists():
        write_data(data)
        write_model(model)
    values: dict[str, Any] = {
        "name": "tiny",
        "store": str(root / "store"),
        "batch_size": 8,
        "report_steps": 2,
        "checkpoint_steps": 2,
        "model": {"path": str(model)},
        "data": {"path": str(data)},
        "task": {"augmentation": "drawings"},
        "search": {"interval": 2, "learning_rate": 1e-3},
        "retrain": {"learning_rate": 1e-3},
        "replica": {"cpus_per_worker": 1, "timeout": 120.0},
    }
    for name, part in parts.items():
        values[name] = {**values[name], **part} if isinstance(values.get(name), dict) else part
    return values


def tiny_experiment(root: Path, **parts: Any) -> Experiment:
    """The tiny experiment, validated."""
    return parse(tiny_values(root, **parts))
