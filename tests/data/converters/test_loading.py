"""What converters make is what the loaders of the tasks take, from memory and streamed."""

from collections.abc import Callable, Sized
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.converters.conftest import Convert
from upop_ray.data.captions import load_captions
from upop_ray.data.classes import class_names, load_classes
from upop_ray.data.image_text import load_image_text
from upop_ray.data.pairs import load_pairs
from upop_ray.data.questions import answer_list, load_questions
from upop_ray.data.reading import Reading
from upop_ray.data.segments import load_segments
from upop_ray.data.shards import ShardedDataset, open_dataset


@pytest.fixture(params=["in memory", "streamed"])
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Reading:
    """How to read."""
    return Reading(cache=tmp_path / "cache", memory_bytes=10**9 if request.param == "in memory" else 0)


@pytest.mark.parametrize(
    ("dataset", "layout", "load", "examples"),
    [
        # five captions an image, each an example
        ("coco", layouts.coco_karpathy, load_image_text, (50, 10, 10)),
        ("flickr30k", layouts.flickr_blip, load_image_text, (30, 10, 10)),
        ("coco", layouts.coco_blip, load_captions, (50, 10, 10)),
        # three questions an image
        ("vqa_v2", layouts.vqa_official, load_questions, (144, 6, 6)),
        ("nlvr2", layouts.nlvr_blip, load_pairs, (10, 6, 6)),
        ("imagenet", layouts.imagenet_tars, load_classes, (15, 3, 9)),
        ("ade20k", layouts.ade20k, load_segments, (9, 1, 4)),
        ("imagefolder", lambda folder: layouts.image_folder(folder, {"train": 20}), load_classes, (32, 4, 4)),
    ],
)
def test_every_split_is_loaded(
    dataset: str,
    layout: Callable[[Path], None],
    load: Callable[[ShardedDataset, str], Sized],
    examples: tuple[int, int, int],
    source: Path,
    convert: Convert,
    reading: Reading,
) -> None:
    layout(source)
    made = replace(convert(dataset, "--shard-mb", "0.01", "--row-group-mb", "0.004"), reading=reading)
    assert tuple(len(load(made, split)) for split in ("train", "val", "test")) == examples


def test_classes_and_images_belong_together(source: Path, convert: Convert, reading: Reading) -> None:
    layouts.imagenet_tars(source)
    made = replace(convert("imagenet", "--row-group-mb", "0.004"), reading=reading)
    split, names = load_classes(made, "test"), class_names(made)
    by_content = {layouts.jpeg(1000 + number): layouts.WNIDS[(number - 1) % 3 + 1] for number in range(1, 10)}
    found = [names[place] for place in split.classes.tolist()]
    assert found == [by_content[content] for content in split.pictures.contents(range(len(split)))]


def test_answers_are_those_of_the_manifest(source: Path, convert: Convert) -> None:
    layouts.vqa_blip(source)
    assert answer_list(convert("vqa_v2")) == ("yes", "no", "maybe", "not sure")


def test_files_of_the_datasets_library_are_loaded(tmp_path: Path, reading: Reading) -> None:
    from tests.data.test_hub_layout import write

    for split, numbers in {"train": range(5), "validation": range(5, 7), "test": range(7, 9)}.items():
        write(tmp_path / f"{split}-00000-of-00001.parquet", numbers)
    named = open_dataset(str(tmp_path), reading=reading, columns={"captions": "text", "image_id": "text"})
    assert len(load_classes(named, "train")) == 5 and len(load_image_text(named, "train")) == 5
    split = load_classes(named, "val")
    assert split.pictures.contents([1, 0]) == [layouts.png(6), layouts.png(5)]
    assert [class_names(named)[place] for place in split.classes.tolist()] == ["dog", "cat"]
