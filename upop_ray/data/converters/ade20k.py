"""ADE20K as in the scene parsing challenge of 2016: 150 classes.

The test labels are not public, so the official validation set is the test here, and what chooses is held out of
training.
"""

import io
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from upop_ray.data.converters.base import SEGMENTED, Conversion, Converter, Count, Item, Piece, Row
from upop_ray.data.converters.holding import hold_out
from upop_ray.data.converters.source import Source

_CLASSES = 150
_INFO = "objectInfo150.txt"
#: share of the training images that is held out to choose by
_HELD_OUT = 0.05
_FOLDER = "ADEChallengeData2016"
_PUBLISHED = {"training": 20_210, "validation": 2_000}


def _read(source: Source) -> Conversion:
    # the folder above the one that the archive makes will do as well
    inside = f"{_FOLDER}/" if (source.root / _FOLDER).is_dir() else ""
    parts = {part: _items(source, inside, part) for part in _PUBLISHED}
    train, val = hold_out(parts["training"], _HELD_OUT, CONVERTER.name)
    splits = {"train": train, "val": val, "test": parts["validation"]}
    counts = {part: Count(len(parts[part]), number, "images") for part, number in _PUBLISHED.items()}
    origin = {
        "train": f"training without the {_HELD_OUT:.0%} that is held out",
        "val": f"{len(val):,} images held out of training, {_HELD_OUT:.0%} of them",
        "test": "the official validation set, since the labels of the test set are not public",
    }
    note = "maps are renumbered: class n of the source is n - 1, and what has no class (0) is 255"
    return Conversion(splits, origin, {"classes": _class_names(source, inside)}, notes=(note,), counts=counts)


def _items(source: Source, inside: str, part: str) -> list[Item]:
    images, maps = (source.need_folder(f"{inside}{kind}/{part}") for kind in ("images", "annotations"))
    names = {PurePosixPath(name).stem: name for name in source.images(images)}
    # a map whose image is missing is a row too, which is found to be broken
    missing = {PurePosixPath(name).stem for name in source.images(maps)} - names.keys()
    names |= {stem: f"{stem}.jpg" for stem in sorted(missing)}
    return [_item(f"{images}/{name}", f"{maps}/{stem}.png") for stem, name in names.items()]


def _item(image: str, segmentation: str) -> Item:
    id = PurePosixPath(image).stem
    return Item(id, {"image": Piece(image), "segmentation": Piece(segmentation)}, {"image_id": id})


def _class_names(source: Source, inside: str) -> list[str]:
    """The names in the order of the numbers in the maps, as the owners write them, with synonyms."""
    lines = source.text(source.need(f"{inside}{_INFO}")).strip().split("\n")[1:]
    names = [line.rstrip().split("\t")[-1].strip() for line in lines]
    if len(names) != _CLASSES or len(set(names)) < _CLASSES:
        raise source.wrong(f"{_INFO} must name {_CLASSES} classes, it names {len(set(names))}")
    return names


def _finish(row: Row) -> Row:
    """Maps hold 0 where there is no class and 1 to 150 elsewhere; ours hold 255 and 0 to 149."""
    image, stored = (Image.open(io.BytesIO(row[column])) for column in ("image", "segmentation"))
    if stored.mode not in ("L", "P") or stored.size != image.size:
        raise ValueError(f"the map is {stored.mode} {stored.size}, it must be one index for each pixel of {image.size}")
    numbers = np.asarray(stored)
    if numbers.max() > _CLASSES:
        raise ValueError(f"the map has class {numbers.max()}, the highest is {_CLASSES}")
    buffer = io.BytesIO()
    # 0 becomes 255 by wrapping around
    Image.fromarray(numbers.astype(np.uint8) - np.uint8(1)).save(buffer, "PNG")
    return {**row, "segmentation": buffer.getvalue()}


CONVERTER = Converter(
    name="ade20k",
    title="ADE20K, 150 classes of the scene parsing challenge 2016",
    home="https://ade20k.csail.mit.edu",
    licence="images for non-commercial research and education only; annotations under a BSD 3-clause licence",
    expects=f"images/{{training,validation}}/, annotations/{{training,validation}}/ and {_INFO} (of {_FOLDER}.zip)",
    schema=SEGMENTED,
    read=_read,
    finish=_finish,
)
