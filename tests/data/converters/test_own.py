"""A user's own data: folders of classes, and JSON lines."""

from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.converters.conftest import Convert, rows
from upop_ray.errors import DataError


def test_folders_are_classes_and_splits(source: Path, convert: Convert) -> None:
    layouts.image_folder(source, {"train": 3, "val": 1, "test": 2})
    made = convert("imagefolder")
    assert made.manifest["classes"] == ["cat", "dog"]
    assert rows(made, "test") == {
        f"test/{name}/{number}.jpg": {
            "image": layouts.jpeg(100 * seed + number),
            "class": name,
            "image_id": f"test/{name}/{number}.jpg",
        }
        for seed, name in enumerate(("cat", "dog"))
        for number in range(2)
    }
    assert len(rows(made, "train")) == 6 and len(rows(made, "val")) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # a tenth of each class, rounded up, of two classes of 20
        ({"train": 20, "val": 3}, {"train": 36, "val": 4, "test": 6}),
        ({"train": 20, "test": 3}, {"train": 36, "val": 4, "test": 6}),
        # first the test is held out, then a tenth of the rest
        ({"train": 20}, {"train": 32, "val": 4, "test": 4}),
    ],
)
def test_splits_that_are_not_there_are_held_out_of_training(
    given: dict[str, int], expected: dict[str, int], source: Path, convert: Convert
) -> None:
    layouts.image_folder(source, given)
    made = convert("imagefolder")
    found = {split: rows(made, split) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in found.items()} == expected
    assert len({id for each in found.values() for id in each}) == sum(expected.values())


def test_a_single_split_to_evaluate_is_the_test_and_not_what_chooses(source: Path, convert: Convert) -> None:
    layouts.image_folder(source, {"train": 20, "val": 3})
    made = convert("imagefolder")
    assert all(id.startswith("val/") for id in rows(made, "test"))
    assert made.manifest["splits"]["test"]["origin"] == "val, as there is no test"


def test_a_class_without_training_images_is_refused(source: Path, convert: Convert) -> None:
    layouts.image_folder(source, {"train": 3, "val": 1})
    layouts.write(source / "val" / "bird" / "1.jpg", layouts.jpeg(1))
    with pytest.raises(DataError, match="val/bird has no folder in train"):
        convert("imagefolder")


def test_lines_name_images_and_captions(source: Path, convert: Convert) -> None:
    layouts.json_lines(source, {"train": 4, "val": 2, "test": 3})
    made = convert("jsonl")
    assert rows(made, "test")["photos/test_2.png"] == {
        "image": layouts.png(202),
        "image_id": "photos/test_2.png",
        "captions": ["Caption 0 of image 2.", "Caption 1 of image 2."],
    }
    assert [len(rows(made, split)) for split in ("train", "val", "test")] == [4, 2, 3]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"image": "photos/train_0.png"}', "line 2: has no 'captions'; every entry needs image, captions"),
        (b'{"image": "a.png", "captions": []}', "line 2: no text that says anything"),
        (b'{"image": "a.png", "captions": "one"}', "line 2: must be a list of texts, got 'one'"),
        (b'{"image": "a.png", "captions": ["\\ud800"]}', "line 2: .* is not UTF-8"),
        (b'{"image": "a.png", "captions": ["caf\xe9"]}', r"train.jsonl: not UTF-8 at byte 132: .*save it as UTF-8"),
        (b'{"image": "../a.png", "captions": ["a"]}', "'../a.png' leads out of the folder; name images inside it"),
        (b'{"image": "/etc/a.png", "captions": ["a"]}', "'/etc/a.png' leads out of the folder"),
        (b'{"image": "photos/train_0.png", "captions": ["a"]}', "two rows have the id 'photos/train_0.png'"),
    ],
)
def test_a_bad_line_is_named(line: bytes, problem: str, source: Path, convert: Convert) -> None:
    layouts.json_lines(source, {"train": 1, "val": 2, "test": 2})
    path = source / "train.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=problem):
        convert("jsonl")
    assert not (source.parent / "prepared" / "manifest.json").exists()
