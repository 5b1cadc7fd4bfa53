"""Images in folders of their class, as torchvision's ImageFolder reads them."""

from dataclasses import replace

from upop_ray.data.converters.base import CLASSIFIED, Conversion, Converter, Item, Piece
from upop_ray.data.converters.own import SPLITS, completed
from upop_ray.data.converters.source import Source


def _read(source: Source) -> Conversion:
    source.need_folder("train")
    found = {split: _items(source, split) for split in SPLITS if (source.root / split).is_dir()}
    classes = sorted({item.values["class"] for item in found["train"]})
    for split, items in found.items():
        unknown = sorted({item.values["class"] for item in items} - set(classes))
        if unknown:
            raise source.wrong(f"{split}/{unknown[0]} has no folder in train")
    conversion = completed(source, found, lambda item: item.values["class"])
    return replace(conversion, facts={"classes": classes, "class_names": classes})


def _items(source: Source, split: str) -> list[Item]:
    folders = [name for name in source.listing(split) if (source.root / split / name).is_dir()]
    if not folders:
        raise source.wrong(f"no folder of a class in {split}")
    return [_item(split, folder, name) for folder in folders for name in source.images(f"{split}/{folder}")]


def _item(split: str, folder: str, name: str) -> Item:
    id = f"{split}/{folder}/{name}"
    return Item(id, {"image": Piece(id)}, {"class": folder, "image_id": id})


CONVERTER = Converter(
    name="imagefolder",
    title="images in folders of their class",
    home="-",
    licence="yours to state",
    expects="train/CLASS/*.jpg, and val/CLASS/*.jpg and test/CLASS/*.jpg (either may lack)",
    schema=CLASSIFIED,
    read=_read,
)
