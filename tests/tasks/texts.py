"""What tests of tasks with a text decoder share: a tiny vocabulary, tiny models, tiny data sets on disk."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn
from transformers import BertTokenizer, BlipConfig, BlipImageProcessorPil

from upop_ray.config import Experiment, parse
from upop_ray.data.shards import ShardedDataset, file_hash, open_dataset

SIDE = 16
_WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a picture of red blue cat dog bird is it what colour yes no 2 big on grass"
VOCABULARY = [*re.findall(r"\S+", _WORDS), "[DEC]", "[ENC]"]
PAD, END, START, QUESTION = 0, 3, len(VOCABULARY) - 2, len(VOCABULARY) - 1


def processor() -> Any:
    """A tokenizer of whole words and BLIP's image processor, as a BlipProcessor offers them."""
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(VOCABULARY)})
    return SimpleNamespace(tokenizer=tokenizer, image_processor=BlipImageProcessorPil())


def ids(text: str, start: int) -> list[int]:
    """Token ids of a text by looking its words up."""
    return [start, *(VOCABULARY.index(word) for word in text.split()), END]


def tiny_model(kind: type[nn.Module]) -> Any:
    """A random BLIP of one layer a tower, in fp64 and evaluation mode, the same each time."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 16, "bos_token_id": START, "sep_token_id": END}
    config = BlipConfig(vision_config=sizes | {"image_size": SIDE, "patch_size": 8}, text_config=sizes | text)
    torch.manual_seed(0)
    model = kind(config).double().eval()
    # large enough that images, questions and answers matter
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, dtype=torch.float64), alpha=0.5)
    return model


def experiment(task: Mapping[str, Any], batch_size: int = 4) -> Experiment:
    return parse({"name": "tiny", "batch_size": batch_size, "task": {"augmentation": "drawings", **task}})


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_dataset(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], **facts: Any) -> ShardedDataset:
    """Rows of each split as a data set; each row gets an image of its own."""
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, rows) in enumerate(splits.items()):
        path = folder / f"{split}.parquet"
        table = pa.Table.from_pylist([{"image": picture(100 * number + row), **rest} for row, rest in enumerate(rows)])
        pq.write_table(table, path)
        files.append({"path": path.name, "split": split, "sha256": file_hash(path.read_bytes())})
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": files, **facts}))
    return open_dataset(str(folder))
