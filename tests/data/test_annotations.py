"""Annotations that are cut short, of another form, or that contradict themselves: one line, whatever it is."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data import layouts
from upop_ray.data import prepare
from upop_ray.data.preparation import Preparation, Settings
from upop_ray.distributed import parallel
from upop_ray.errors import DataError

PART = Settings(partial=True, broken_share=0.5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a layout is to be laid out."""
    return tmp_path / "source"


def read(dataset: str, source: Path, settings: Settings = PART) -> Preparation:
    return Preparation(dataset, str(source), str(source.parent / "to"), settings)


def changed(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    layouts.write(path, document)


COUNTS = [
    ("coco", layouts.coco_blip, "train: 10 of 113,287 images; val: 2 of 5,000 images; test: 2 of 5,000 images"),
    (
        "flickr30k",
        layouts.flickr_karpathy,
        "train: 6 of 29,000 images; val: 2 of 1,014 images; test: 2 of 1,000 images",
    ),
    ("vqa_v2", layouts.vqa_official, "train2014: 36 of 443,757 questions; val2014: 120 of 214,354 questions"),
    ("nlvr2", layouts.nlvr_blip, "train: 10 of 86,373 statements; dev: 6 of 6,982 .*; test1: 6 of 6,967 statements"),
    ("imagenet", layouts.imagenet_tars, "train: 18 of 1,281,167 images; val: 9 of 50,000 images"),
    ("ade20k", layouts.ade20k, "training: 10 of 20,210 images; validation: 4 of 2,000 images"),
]


@pytest.mark.parametrize(("dataset", "layout", "counts"), COUNTS)
def test_a_part_of_a_published_data_set_has_to_be_accepted(
    dataset: str, layout: Callable[[Path], None], counts: str, source: Path
) -> None:
    layout(source)
    with pytest.raises(DataError, match=f"{source}: {counts}; fetch the rest, or accept what is there with --partial"):
        read(dataset, source, Settings())
    assert read(dataset, source, Settings(limit=2)).differing == read(dataset, source).differing != {}


def test_what_a_part_lacks_is_on_the_screen_and_in_the_card(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parallel, "map_jobs", lambda function, jobs, workers: map(function, jobs))
    layouts.coco_karpathy(source)
    assert prepare.main(["coco", "--source", str(source), "--to", str(tmp_path / "to"), "--limit", "2"]) == 0
    assert capsys.readouterr().out.count("attention: train has 10 of 113,287 images of the published data set") == 2
    assert (
        "than the published data set has: train: 10 of 113,287 images; val: " in (tmp_path / "to/README.md").read_text()
    )


def test_a_map_without_its_image_is_a_broken_row(source: Path) -> None:
    layouts.ade20k(source)
    images = source / "ADEChallengeData2016" / "images" / "training"
    for path in sorted(images.iterdir())[::2]:
        path.unlink()
    preparation = read("ade20k", source, Settings(partial=True, broken_share=0.1))
    assert preparation.differing["training"] == "10 of 20,210 images"
    with pytest.raises(DataError, match=r"4 of 14 rows .*images/training/ADE_train_0000000\d.jpg: missing"):
        preparation.run(map)


def first_image(change: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda document: change(document["images"][0])


FORMS: list[tuple[str, Callable[[Path], None], str, Callable[[Any], None]]] = [
    ("coco", layouts.coco_karpathy, "dataset_coco.json", first_image(lambda image: image.pop("filepath"))),
    ("coco", layouts.coco_karpathy, "dataset_coco.json", first_image(lambda image: image.update(sentences=["a dog"]))),
    ("coco", layouts.coco_blip, "annotation/coco_karpathy_val.json", lambda found: found[0].update(image=5)),
    (
        "vqa_v2",
        layouts.vqa_official,
        "v2_mscoco_train2014_annotations.json",
        lambda found: found["annotations"][0].update(answers=["yes"]),
    ),
    (
        "vqa_v2",
        layouts.vqa_official,
        "v2_OpenEnded_mscoco_train2014_questions.json",
        lambda found: found["questions"][0].update(image_id="1"),
    ),
    ("nlvr2", layouts.nlvr_blip, "annotation/nlvr_dev.json", lambda found: found[0].update(images=[1, 2])),
]


@pytest.mark.parametrize(("dataset", "layout", "name", "change"), FORMS)
def test_another_form_is_said_with_the_files_that_were_read(
    dataset: str, layout: Callable[[Path], None], name: str, change: Callable[[Any], None], source: Path
) -> None:
    layout(source)
    changed(source / name, change)
    with pytest.raises(
        DataError, match=rf"{source}: the annotations \(.*{name}.*\) have another form \(\w+Error: "
    ) as e:
        read(dataset, source)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "change", [lambda text: text.replace("ImageId", "Image"), lambda text: text[: len(text) // 2 - 3]]
)
def test_a_table_of_another_form_is_named(change: Callable[[str], str], source: Path) -> None:
    layouts.imagenet_kaggle(source)
    path = source / "LOC_val_solution.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=r"the annotations \(LOC_val_solution.csv\) have another form"):
        read("imagenet", source)


def test_a_question_of_visual_genome_without_an_answer_is_said(source: Path) -> None:
    layouts.vqa_official(source)
    layouts.visual_genome(source, {2001: None})
    changed(source / "visual_genome" / "question_answers.json", lambda found: found[0]["qas"][0].pop("answer"))
    with pytest.raises(DataError, match=r"question_answers.json\) have another form \(KeyError: 'answer'\)"):
        read("vqa_v2", source)


@pytest.mark.parametrize("more", [{"image": "\ud800.png"}, {"image_id": "\ud800"}])
@pytest.mark.parametrize("splits", [{"train": 20}, {"train": 4, "val": 1, "test": 1}])
def test_a_name_that_is_not_utf8_is_refused(more: dict[str, str], splits: dict[str, int], source: Path) -> None:
    layouts.json_lines(source, splits)
    with (source / "train.jsonl").open("a") as file:
        file.write(json.dumps({"image": "a.png", "captions": ["a"], **more}) + "\n")
    with pytest.raises(
        DataError, match=r"the name '\\ud800(\.png)?' is not UTF-8; rename the file, or correct"
    ) as caught:
        read("jsonl", source)
    assert str(caught.value).isascii()


def test_a_file_whose_name_is_not_utf8_is_refused(source: Path) -> None:
    layouts.image_folder(source, {"train": 20})
    folder = os.fsencode(source / "train" / "cat")
    os.rename(folder + b"/1.jpg", folder + b"/caf\xe9.jpg")
    with pytest.raises(DataError, match=r"the name 'train/cat/caf\\udce9.jpg' is not UTF-8"):
        read("imagefolder", source)


def test_a_name_that_no_file_can_have_is_a_missing_image(source: Path) -> None:
    layouts.json_lines(source, {"train": 2, "val": 1, "test": 1})
    with (source / "train.jsonl").open("a") as file:
        file.write(json.dumps({"image": "x" * 300, "captions": ["a"]}) + "\n")
    assert read("jsonl", source).run(map)["rows"]["train"] == 2


TWICE: list[tuple[str, Callable[[Path], None], str, Callable[[Any], None], str]] = [
    (
        "coco",
        layouts.coco_karpathy,
        "dataset_coco.json",
        lambda found: found["images"].append(found["images"][0] | {"filename": "other.jpg", "imgid": 99}),
        "image 14: cocoid 1 stands for two images, .*0001.jpg and train2014/other.jpg; correct one",
    ),
    (
        "flickr30k",
        layouts.flickr_karpathy,
        "dataset_flickr30k.json",
        lambda found: found["images"][3].update(imgid=0),
        "image 3: imgid 0 stands for two images, ",
    ),
    (
        "vqa_v2",
        layouts.vqa_official,
        "v2_OpenEnded_mscoco_train2014_questions.json",
        lambda found: found["questions"].append(found["questions"][0] | {"question": "Again?"}),
        "question_id 1000 is there twice, of .*0001.jpg and .*0001.jpg; correct one",
    ),
    (
        "vqa_v2",
        layouts.vqa_official,
        "v2_mscoco_train2014_annotations.json",
        lambda found: found["annotations"].append(found["annotations"][0]),
        "train2014_annotations.json: question_id 1000 is there twice; fetch it again",
    ),
]


@pytest.mark.parametrize(("dataset", "layout", "name", "change", "problem"), TWICE)
def test_what_is_there_twice_is_refused(
    dataset: str, layout: Callable[[Path], None], name: str, change: Callable[[Any], None], problem: str, source: Path
) -> None:
    layout(source)
    changed(source / name, change)
    with pytest.raises(DataError, match=problem):
        read(dataset, source)


def test_two_addresses_of_one_image_of_visual_genome_are_refused(source: Path) -> None:
    layouts.vqa_official(source)
    layouts.visual_genome(source, {2001: None, 2002: None})
    path = source / "visual_genome" / "image_data.json"
    changed(path, lambda found: found.append(found[0]))
    assert read("vqa_v2", source)
    changed(path, lambda found: found.append(found[1] | {"image_id": 2001}))
    with pytest.raises(DataError, match=r"image 2001 is there twice, as .*VG_100K/2001.jpg and .*VG_100K_2/2002.jpg"):
        read("vqa_v2", source)


@pytest.mark.parametrize("name", ["photos/train_0.png", "./photos//train_0.png"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_under_two_ids_is_refused_so_that_none_is_trained_on_and_held_out(
    name: str, split: str, source: Path
) -> None:
    layouts.json_lines(source, {"train": 4, "val": 1, "test": 1})
    with (source / f"{split}.jsonl").open("a") as file:
        file.write(json.dumps({"image": name, "image_id": "other", "captions": ["a"]}) + "\n")
    problem = "the image photos/train_0.png is there twice, with the ids 'photos/train_0.png' and 'other'; give it one"
    with pytest.raises(DataError, match=problem):
        read("jsonl", source)


def test_two_images_under_one_id_are_refused_across_splits(source: Path) -> None:
    layouts.json_lines(source, {"train": 4, "val": 1, "test": 1})
    for split, image in (("train", "a.png"), ("test", "b.png")):
        with (source / f"{split}.jsonl").open("a") as file:
            file.write(json.dumps({"image": image, "image_id": "same", "captions": ["a"]}) + "\n")
    with pytest.raises(DataError, match=r"two rows have the id 'same': a.png and b.png; give each its own"):
        read("jsonl", source)


def test_images_of_pairs_may_be_shared_in_a_split_but_not_between_splits(source: Path) -> None:
    layouts.nlvr_blip(source)
    path = source / "annotation" / "nlvr_dev.json"
    images = json.loads((source / "annotation" / "nlvr_train.json").read_text())[0]["images"]
    changed(path, lambda found: found[0].update(images=[found[0]["images"][0], images[0]]))
    with pytest.raises(
        DataError, match=r"the image images/train/0/train-0-0-img0.png is in train and in val; leave it"
    ):
        read("nlvr2", source)
