"""COCO 2014 with captions."""

from pathlib import PurePosixPath
from typing import Any

from upop_ray.data.converters.base import CAPTIONED, Conversion, Converter
from upop_ray.data.converters.karpathy import Files, read_split
from upop_ray.data.converters.source import Source

_FILES = Files("dataset_coco.json", {split: f"coco_karpathy_{split}.json" for split in ("train", "val", "test")})
_PUBLISHED = {"train": 113_287, "val": 5_000, "test": 5_000}


def image_id(path: str) -> str:
    """The number of a COCO image by its name: `train2014/COCO_train2014_000000000009.jpg` is `9`."""
    number = PurePosixPath(path).stem.rsplit("_", 1)[-1]
    return str(int(number)) if number.isdecimal() else PurePosixPath(path).stem


def _path(entry: Any) -> str:
    return f"{entry['filepath']}/{entry['filename']}"


def _read(source: Source) -> Conversion:
    for folder in ("train2014", "val2014"):
        source.need_folder(folder)
    return read_split(source, _FILES, _path, image_id, _PUBLISHED)


CONVERTER = Converter(
    name="coco",
    title="COCO 2014 captions, Karpathy split",
    home="https://cocodataset.org",
    licence="annotations CC BY 4.0; images under the Flickr Terms of Use, their copyright lies with their owners",
    expects="train2014/, val2014/, and dataset_coco.json (Karpathy) or coco_karpathy_{train,val,test}.json (BLIP)",
    schema=CAPTIONED,
    read=_read,
)
