"""NLVR2: statements about two photographs."""

import re
from collections.abc import Iterator
from typing import Any

from upop_ray.data.converters.base import PAIRED, Conversion, Converter, Count, Item, Piece
from upop_ray.data.converters.source import Source, clean_texts
from upop_ray.errors import DataError

_OFFICIAL = {"train": "train.json", "val": "dev.json", "test": "test1.json"}
_BLIP = {"train": "nlvr_train.json", "val": "nlvr_dev.json", "test": "nlvr_test.json"}
_IMAGE_FOLDERS = {"train": "train", "val": "dev", "test": "test1"}
_ORIGIN = {"train": "train", "val": "dev", "test": "test-P (test1), the public test set"}
_PUBLISHED = {"train": 86_373, "val": 6_982, "test": 6_967}
_LABELS = {"true": True, "false": False}
#: split-set-pair-sentence
_IDENTIFIER = re.compile(r"(.+-\d+-\d+)-(\d+)")


def _read(source: Source) -> Conversion:
    official = source.find(_OFFICIAL["train"]) is not None
    if not official and source.find(_BLIP["train"]) is None:
        raise source.wrong(f"no {_OFFICIAL['train']} nor {_BLIP['train']}")
    names = _OFFICIAL if official else _BLIP
    read = _of_official if official else _of_blip
    splits = {split: list(read(source, split, source.need(name))) for split, name in names.items()}
    counts = {
        _IMAGE_FOLDERS[split]: Count(len(splits[split]), number, "statements") for split, number in _PUBLISHED.items()
    }
    return Conversion(splits, _ORIGIN, counts=counts)


def _of_official(source: Source, split: str, name: str) -> Iterator[Item]:
    folder = source.need_folder(f"images/{_IMAGE_FOLDERS[split]}", _IMAGE_FOLDERS[split])
    for place, entry in source.lines(name, ("identifier", "sentence", "label")):
        match = _IDENTIFIER.fullmatch(entry["identifier"])
        if match is None:
            raise DataError(f"{place}: identifier {entry['identifier']!r} is not SPLIT-SET-PAIR-SENTENCE")
        # training images lie in numbered folders
        inner = f"{folder}/{entry['directory']}" if "directory" in entry else folder
        pair = (f"{inner}/{match[1]}-img0.png", f"{inner}/{match[1]}-img1.png")
        yield _item(entry, entry["identifier"], pair, place)


def _of_blip(source: Source, split: str, name: str) -> Iterator[Item]:
    """These files name images and no sentence; a sentence's number is its place among those of its set."""
    folder = source.need_folder(f"images/{_IMAGE_FOLDERS[split]}", _IMAGE_FOLDERS[split])
    # these files write `train/...` or `images/train/...`, whichever their authors' folders had
    above = folder.removesuffix(_IMAGE_FOLDERS[split])
    numbers: dict[str, dict[str, int]] = {}
    for count, entry in enumerate(source.entries(name, ("sentence", "label", "images"))):
        place = f"{source.root / name}, entry {count}"
        if not isinstance(entry["images"], list) or len(entry["images"]) != 2:
            raise DataError(f"{place}: `images` must name two, got {entry['images']!r}")
        pair = re.sub(r"-img[01]$", "", entry["images"][0].rsplit("/", 1)[-1].rsplit(".", 1)[0])
        of_set = numbers.setdefault(pair.rsplit("-", 1)[0], {})
        number = of_set.setdefault(entry["sentence"], len(of_set))
        left, right = (above + image.removeprefix("images/") for image in entry["images"])
        yield _item(entry, f"{pair}-{number}", (left, right), place)


def _item(entry: Any, identifier: str, pair: tuple[str, str], place: str) -> Item:
    label = _LABELS.get(str(entry["label"]).lower())
    if label is None:
        raise DataError(f"{place}: label must be True or False, got {entry['label']!r}")
    values = {
        "statement": clean_texts([entry["sentence"]], place)[0],
        "label": label,
        "identifier": identifier,
    }
    return Item(identifier, {"left": Piece(pair[0]), "right": Piece(pair[1])}, values)


CONVERTER = Converter(
    name="nlvr2",
    title="NLVR2",
    home="https://lil.nlp.cornell.edu/nlvr/",
    licence="annotations CC BY 4.0; images for research only, their copyright lies with their owners",
    expects=(
        "train.json, dev.json and test1.json (in data/), or BLIP's nlvr_{train,dev,test}.json, and images/train/, "
        "images/dev/ and images/test1/ (or these without images/)"
    ),
    schema=PAIRED,
    read=_read,
)
