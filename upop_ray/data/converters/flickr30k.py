"""Flickr30K."""

from pathlib import PurePosixPath
from typing import Any

from upop_ray.data.converters.base import CAPTIONED, Conversion, Converter
from upop_ray.data.converters.karpathy import Files, read_split
from upop_ray.data.converters.source import Source

_FOLDER = "flickr30k-images"
_FILES = Files("dataset_flickr30k.json", {split: f"flickr30k_{split}.json" for split in ("train", "val", "test")})
_PUBLISHED = {"train": 29_000, "val": 1_014, "test": 1_000}


def _path(entry: Any) -> str:
    return f"{_FOLDER}/{entry['filename']}"


def _image_id(path: str) -> str:
    return PurePosixPath(path).stem


def _read(source: Source) -> Conversion:
    source.need_folder(_FOLDER)
    return read_split(source, _FILES, _path, _image_id, _PUBLISHED)


CONVERTER = Converter(
    name="flickr30k",
    title="Flickr30K captions, Karpathy split",
    home="https://shannon.cs.illinois.edu/DenotationGraph/",
    licence="for non-commercial research and education; images under the Flickr Terms of Use",
    expects="flickr30k-images/, and dataset_flickr30k.json (Karpathy) or flickr30k_{train,val,test}.json (BLIP)",
    schema=CAPTIONED,
    read=_read,
)
