"""Images with captions listed in JSON lines."""

from upop_ray.data.converters.base import CAPTIONED, Conversion, Converter, Item, Piece
from upop_ray.data.converters.own import SPLITS, completed
from upop_ray.data.converters.source import Source, clean_texts
from upop_ray.errors import DataError


def _read(source: Source) -> Conversion:
    source.need("train.jsonl")
    names = {split: source.find(f"{split}.jsonl") for split in SPLITS}
    return completed(source, {split: _items(source, name) for split, name in names.items() if name})


def _items(source: Source, name: str) -> list[Item]:
    return [_item(entry, place) for place, entry in source.lines(name, ("image", "captions"))]


def _item(entry: dict[str, object], place: str) -> Item:
    image, captions = entry["image"], clean_texts(entry["captions"], place)
    if not isinstance(image, str):
        raise DataError(f"{place}: `image` must be a path inside the folder, got {image!r}")
    id = str(entry.get("image_id", image))
    return Item(id, {"image": Piece(image)}, {"image_id": id, "captions": captions})


CONVERTER = Converter(
    name="jsonl",
    title="images with captions",
    home="-",
    licence="yours to state",
    expects='train.jsonl (and val.jsonl, test.jsonl, or either) with {"image": PATH, "captions": [TEXT, ...]} a line',
    schema=CAPTIONED,
    read=_read,
)
