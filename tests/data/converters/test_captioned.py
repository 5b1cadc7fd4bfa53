"""COCO and Flickr30K: the split of Karpathy, from his files and from BLIP's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.converters.conftest import Convert, rows
from upop_ray.errors import DataError

#: numbers of the images of each split, by hand: 8 of train2014, two of val2014 as restval, two each to val and test
COCO = {"train": {*range(1, 9), 101, 102}, "val": {103, 104}, "test": {105, 106}}
FLICKR = {"train": set(range(1000, 1006)), "val": {1006, 1007}, "test": {1008, 1009}}


@pytest.mark.parametrize(
    ("dataset", "layout", "expected"),
    [
        ("coco", layouts.coco_karpathy, COCO),
        ("coco", layouts.coco_blip, COCO),
        ("flickr30k", layouts.flickr_karpathy, FLICKR),
        ("flickr30k", layouts.flickr_blip, FLICKR),
    ],
)
def test_each_image_has_its_split_its_bytes_and_its_captions(
    dataset: str, layout: Callable[[Path], None], expected: dict[str, set[int]], source: Path, convert: Convert
) -> None:
    layout(source)
    made = convert(dataset)
    for split, numbers in expected.items():
        assert rows(made, split) == {
            str(number): {
                "image": layouts.jpeg(number),
                "image_id": str(number),
                "captions": [text.strip() for text in layouts.captions(number)],
            }
            for number in numbers
        }


def test_both_kinds_of_files_make_one_data_set(source: Path, convert: Convert) -> None:
    layouts.coco_karpathy(source)
    first = convert("coco")
    (source / "dataset_coco.json").unlink()
    layouts.coco_blip(source)
    assert convert("coco").content_hash == first.content_hash


def test_training_captions_of_one_image_id_and_two_images_are_refused(source: Path, convert: Convert) -> None:
    layouts.coco_blip(source)
    path = source / "annotation" / "coco_karpathy_train.json"
    entries = json.loads(path.read_text())
    entries[5]["image_id"] = entries[0]["image_id"]
    layouts.write(path, entries)
    with pytest.raises(
        Exception, match=r"train.json, entry 5: image_id 'coco_1' stands for two images, .*0001.jpg and"
    ):
        convert("coco")


def test_an_image_that_is_listed_twice_is_refused(source: Path, convert: Convert) -> None:
    layouts.coco_karpathy(source)
    path = source / "dataset_coco.json"
    document = json.loads(path.read_text())
    document["images"].append(document["images"][0] | {"split": "test"})
    layouts.write(path, document)
    with pytest.raises(DataError, match=r"dataset_coco.json, image 14: train2014/.*000001.jpg is there twice"):
        convert("coco")


def test_an_unknown_split_is_named(source: Path, convert: Convert) -> None:
    layouts.flickr_karpathy(source)
    path = source / "dataset_flickr30k.json"
    path.write_text(path.read_text().replace('"val"', '"validation"'))
    with pytest.raises(DataError, match=r"image 6: unknown split 'validation'; use train, restval, val, test"):
        convert("flickr30k")
