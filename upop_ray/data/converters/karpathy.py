"""Images with captions in the split of Karpathy and Fei-Fei (2015), from its own files or from those of BLIP."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from upop_ray.data.converters.base import Conversion, Count, Item, Piece
from upop_ray.data.converters.source import Source, clean_texts, utf8_texts
from upop_ray.errors import DataError

#: splits of the published files; `restval` is the rest of the validation images, which everybody trains on
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
#: of images, in Karpathy's files
_NUMBERS = {"cocoid", "imgid"}
_ORIGIN = {
    "train": "Karpathy's train split (of COCO with restval)",
    "val": "Karpathy's val split",
    "test": "Karpathy's test split",
}

Captions = dict[str, dict[str, list[str]]]
#: of the address of an image, as the annotations give it
ImageId = Callable[[str], str]


class Files(NamedTuple):
    """Names of the annotations.

    :param blip: by split, read where Karpathy's is missing
    """

    karpathy: str
    blip: Mapping[str, str]


def read_split(
    source: Source, files: Files, path_of: Callable[[Any], str], image_id: ImageId, published: Mapping[str, int]
) -> Conversion:
    """Read the annotations.

    :param path_of: an entry of Karpathy's file -> address of the image in the source
    :param image_id: the same for one image in both kinds of files
    :param published: images of each split
    :raises DataError: there are neither; see :class:`Source`; an image occurs twice
    """
    name = source.find(files.karpathy)
    if name is None and source.find(*files.blip.values()) is None:
        raise source.wrong(f"no {files.karpathy}, nor {', '.join(files.blip.values())}")
    captions = _of_karpathy(source, name, path_of) if name else _of_blip(source, files.blip)
    splits = {
        split: [_item(path, texts, image_id) for path, texts in found.items()] for split, found in captions.items()
    }
    counts = {split: Count(len(splits[split]), number, "images") for split, number in published.items()}
    return Conversion(splits, _ORIGIN, counts=counts)


def _item(path: str, texts: list[str], image_id: ImageId) -> Item:
    id = image_id(path)
    return Item(id, {"image": Piece(path)}, {"image_id": id, "captions": texts})


def _of_karpathy(source: Source, name: str, path_of: Callable[[Any], str]) -> Captions:
    captions: Captions = {"train": {}, "val": {}, "test": {}}
    ids: dict[str, str] = {}
    for number, entry in enumerate(source.entries(name, ("filename", "split", "sentences"), under="images")):
        place = f"{source.root / name}, image {number}"
        if entry["split"] not in _SPLITS:
            raise DataError(f"{place}: unknown split {entry['split']!r}; use {', '.join(_SPLITS)}")
        path = path_of(entry)
        if any(path in found for found in captions.values()):
            raise DataError(f"{place}: {path} is there twice; an image has one entry with all its sentences")
        for key in _NUMBERS & entry.keys():
            _require_one(ids, f"{key} {entry[key]}", path, place)
        texts = [sentence.get("raw") for sentence in entry["sentences"]]
        captions[_SPLITS[entry["split"]]][path] = clean_texts(texts, place)
    return captions


def _of_blip(source: Source, names: Mapping[str, str]) -> Captions:
    captions: Captions = {}
    for split, name in names.items():
        file = source.need(name)
        found: dict[str, list[str]] = {}
        ids: dict[str, str] = {}
        for number, entry in enumerate(source.entries(file, ("image", "caption"))):
            place = f"{source.root / file}, entry {number}"
            path, texts = entry["image"], entry["caption"]
            # in training an entry is one caption of an image, else all of them
            if isinstance(texts, str):
                _require_one(ids, f"image_id {str(entry.get('image_id', path))!r}", path, place)
                found.setdefault(path, []).extend(utf8_texts([texts], place))
            elif path in found:
                raise DataError(f"{place}: {path} is there twice; an image has one entry with all its captions")
            else:
                found[path] = clean_texts(texts, place)
        for path, texts in found.items():
            clean_texts(texts, f"{source.root / file}, {path}")
        captions[split] = found
    return captions


def _require_one(ids: dict[str, str], id: str, path: str, place: str) -> None:
    if ids.setdefault(id, path) != path:
        raise DataError(f"{place}: {id} stands for two images, {ids[id]} and {path}; correct one")
