"""A made-up segmentation data set: a red and a blue rectangle on white, 32 x 32, the first row of no class."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from tests.datasets import write_dataset
from upop_ray.models.segmenter import Segmenter, SegmenterConfig

SIDE = 32
CLASSES = ("paper", "red", "blue")
COLOURS = np.array([[255, 255, 255], [220, 20, 20], [20, 20, 220]], np.uint8)
SIZES = {"train": 16, "val": 5, "test": 4}


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def drawing(seed: int) -> dict[str, bytes]:
    """One row of the data set."""
    draws = np.random.default_rng(seed)
    classes = np.zeros((SIDE, SIDE), np.uint8)
    for number in (1, 2):
        top, left = draws.integers(2, SIDE // 2, 2)
        classes[top : top + 12, left : left + 10] = number
    image = COLOURS[classes]
    classes[0] = 255
    return {"image": png(image), "segmentation": png(classes)}


def write_data(folder: Path) -> Path:
    rows, seed = {}, 0
    for split, count in SIZES.items():
        rows[split] = [drawing(seed + number) for number in range(count)]
        seed += count
    write_dataset(folder, rows, classes=CLASSES)
    return folder


def tiny_segmenter() -> Segmenter:
    """A random one, with 16 patches."""
    config = SegmenterConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        decoder_layers=1,
        num_labels=len(CLASSES),
    )
    torch.manual_seed(0)
    return Segmenter(config)


def tiny_processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


def write_model(folder: Path) -> Path:
    tiny_segmenter().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder
