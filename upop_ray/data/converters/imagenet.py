"""ImageNet-1k (ILSVRC 2012): folders or the tar files.

The test labels are not public, so the official validation set is the test here, and what chooses is held out of
training.
"""

import csv
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from upop_ray.data.converters import tar_files
from upop_ray.data.converters.base import CLASSIFIED, Conversion, Converter, Count, Item, Piece
from upop_ray.data.converters.holding import hold_out
from upop_ray.data.converters.source import Source
from upop_ray.errors import DataError

_TRAIN_TAR, _VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_KAGGLE_TRUTH, _KAGGLE_NAMES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_WNID = re.compile(r"n\d{8}")
#: share of the training images of each class that is held out to choose by
_HELD_OUT = 0.01
_PUBLISHED = {"train": 1_281_167, "val": 50_000}


def _read(source: Source) -> Conversion:
    training = [_item(wnid, piece) for wnid, piece in _training(source)]
    if not training:
        raise source.wrong("no training image")
    known = {item.values["class"] for item in training}
    train, val = hold_out(training, _HELD_OUT, CONVERTER.name, lambda item: item.values["class"])
    test = [_item(wnid, piece) for wnid, piece in _validation(source)]
    for item in test:
        if item.values["class"] not in known:
            raise source.wrong(f"{item.files['image']} is of class {item.values['class']}, which has no training image")
    classes = sorted(known)
    facts: dict[str, Any] = {"classes": classes}
    names = _class_names(source)
    if all(wnid in names for wnid in classes):
        facts["class_names"] = [names[wnid] for wnid in classes]
    origin = {
        "train": f"train without what is held out ({_HELD_OUT:.0%} of each class)",
        "val": f"{len(val):,} images held out of train, {_HELD_OUT:.0%} of each class",
        "test": "the official validation set, since the labels of the test set are not public",
    }
    found = {"train": len(training), "val": len(test)}
    counts = {part: Count(found[part], number, "images") for part, number in _PUBLISHED.items()}
    return Conversion({"train": train, "val": val, "test": test}, origin, facts, counts=counts)


def _item(wnid: str, piece: Piece) -> Item:
    id = PurePosixPath(piece.member or piece.path).stem
    return Item(id, {"image": piece}, {"class": wnid, "image_id": id})


def _training(source: Source) -> Iterator[tuple[str, Piece]]:
    if (source.root / _TRAIN_TAR).is_file():
        yield from tar_files.nested(source, _TRAIN_TAR)
        return
    folder = source.need_folder("train", "ILSVRC/Data/CLS-LOC/train")
    for wnid in source.listing(folder):
        if _WNID.fullmatch(wnid):
            yield from ((wnid, Piece(f"{folder}/{wnid}/{name}")) for name in source.images(f"{folder}/{wnid}"))


def _validation(source: Source) -> Iterator[tuple[str, Piece]]:
    if (source.root / _VAL_TAR).is_file():
        pieces = sorted(tar_files.members(source, _VAL_TAR), key=lambda piece: piece.member)
        yield from _labelled(source, pieces)
        return
    folder = source.need_folder("val", "ILSVRC/Data/CLS-LOC/val")
    wnids = [name for name in source.listing(folder) if _WNID.fullmatch(name)]
    for wnid in wnids:
        yield from ((wnid, Piece(f"{folder}/{wnid}/{name}")) for name in source.images(f"{folder}/{wnid}"))
    if not wnids:
        yield from _labelled(source, [Piece(f"{folder}/{name}") for name in source.images(folder)])


def _labelled(source: Source, pieces: list[Piece]) -> Iterator[tuple[str, Piece]]:
    """Validation images that do not lie in folders of their class."""
    kaggle = source.find(_KAGGLE_TRUTH)
    if kaggle is not None:
        rows = csv.DictReader(io.StringIO(source.text(kaggle)))
        truth = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    else:
        truth = _truth(source, pieces)
    for piece in pieces:
        id = PurePosixPath(piece.member or piece.path).stem
        if id not in truth:
            raise source.wrong(f"{piece} has no class in the ground truth")
        yield truth[id], piece


def _truth(source: Source, pieces: list[Piece]) -> dict[str, str]:
    """The ground truth is a number a line, for the images in the order of their names."""
    lines = _devkit_file(source, _TRUTH).decode().split()
    if len(lines) != len(pieces):
        raise source.wrong(f"{len(pieces)} validation images and {len(lines)} lines in {_TRUTH}")
    numbers = _meta(source)[1]
    unknown = sorted(set(lines) - numbers.keys())
    if unknown:
        raise source.wrong(f"class {unknown[0]!r} in {_TRUTH} is not in meta.mat")
    ids = [PurePosixPath(piece.member or piece.path).stem for piece in pieces]
    return {id: numbers[line] for id, line in zip(ids, lines, strict=True)}


def _class_names(source: Source) -> dict[str, str]:
    """What the classes are called by wnid, where the development kit or the file of Kaggle is there."""
    mapping = source.find(_KAGGLE_NAMES)
    if mapping is not None:
        lines = source.text(mapping).splitlines()
        return {wnid: name for wnid, _, name in (line.partition(" ") for line in lines)}
    if source.find(_DEVKIT, f"{_DEVKIT}.tar.gz") is not None:
        return _meta(source)[0]
    return {}


def _meta(source: Source) -> tuple[dict[str, str], dict[str, str]]:
    """Names by wnid, and wnids by the number that the ground truth writes."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        cure = 'install it with `pip install "upop_ray[data]"`'
        raise DataError(f"{_DEVKIT}: scipy is missing, which reads meta.mat; {cure}") from error
    try:
        synsets = loadmat(io.BytesIO(_devkit_file(source, "meta.mat")), squeeze_me=True)["synsets"]
    except (ValueError, KeyError, OSError) as error:
        raise source.wrong(f"meta.mat of {_DEVKIT} cannot be read ({error})") from error
    # synsets with children are the inner nodes of the tree of classes
    leaves = [entry for entry in synsets if int(entry["num_children"]) == 0]
    names = {str(entry["WNID"]): str(entry["words"]) for entry in leaves}
    return names, {str(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in leaves}


def _devkit_file(source: Source, name: str) -> bytes:
    found = source.need(f"{_DEVKIT}.tar.gz", f"{_DEVKIT}/data/{name}")
    path = source.root / found
    if not found.endswith(".tar.gz"):
        return path.read_bytes()
    try:
        with tarfile.open(path, "r:gz") as archive:
            member = archive.extractfile(f"{_DEVKIT}/data/{name}")
            assert member is not None, "a regular file"
            return member.read()
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {error}; fetch it again") from error


CONVERTER = Converter(
    name="imagenet",
    title="ImageNet-1k (ILSVRC 2012)",
    home="https://image-net.org",
    licence="for non-commercial research and education, under the terms of access of ImageNet",
    expects=(
        f"train/WNID/*.JPEG, and val/WNID/*.JPEG, or val/*.JPEG with {_DEVKIT}.tar.gz (or its folder) or "
        f"{_KAGGLE_TRUTH}; or {_TRAIN_TAR}, {_VAL_TAR} and {_DEVKIT}.tar.gz"
    ),
    schema=CLASSIFIED,
    read=_read,
)
