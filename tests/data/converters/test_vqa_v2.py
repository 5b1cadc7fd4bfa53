"""VQA v2: what is held out, weights of answers, the answer list, and Visual Genome without what is held out."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.converters.conftest import Convert, rows
from upop_ray.errors import DataError

VAL = range(101, 141)


def held_out() -> tuple[set[str], set[str]]:
    """A tenth of the 40 images of val2014: the four of the smallest sha256, in turn to val and to test."""
    ids = sorted(map(str, VAL), key=lambda id: hashlib.sha256(f"vqa_v2/{id}".encode()).digest())[:4]
    return set(ids[::2]), set(ids[1::2])


@pytest.mark.parametrize("layout", [layouts.vqa_official, layouts.vqa_blip])
def test_a_tenth_of_val2014_is_held_out_half_to_choose_half_to_report(
    layout: Callable[[Path], None], source: Path, convert: Convert
) -> None:
    layout(source)
    made = convert("vqa_v2")
    val, test = held_out()
    everything = {str(number) for number in [*range(1, 13), *VAL]}
    assert len(val) == len(test) == 2 and not val & test
    assert set(rows(made, "val")) == val and set(rows(made, "test")) == test
    assert set(rows(made, "train")) == everything - val - test


@pytest.mark.parametrize("layout", [layouts.vqa_official, layouts.vqa_blip])
def test_an_answer_weighs_the_share_of_the_annotators_who_gave_it(
    layout: Callable[[Path], None], source: Path, convert: Convert
) -> None:
    layout(source)
    row = rows(convert("vqa_v2"), "train")["7"]
    assert row["image"] == layouts.jpeg(7)
    ids = [entry["question_id"] for entry in row["questions"]]
    assert ids == ["7000", "7001", "7002"]
    first = row["questions"][1]
    assert first["question"] == "Is it 7001?" and first["answers"] == ["no", "maybe", "not sure"]
    assert first["weights"] == pytest.approx([0.7, 0.2, 0.1])


def test_the_list_holds_answers_that_are_the_most_given_of_nine_questions_in_training(
    source: Path, convert: Convert
) -> None:
    layouts.vqa_official(source)
    # of 156 questions half are answered "yes" most, half "no"; "maybe" is never the most given
    assert convert("vqa_v2").manifest["answers"] == ["no", "yes"]


def test_a_published_list_is_taken_as_it_is(source: Path, convert: Convert) -> None:
    layouts.vqa_blip(source)
    assert convert("vqa_v2").manifest["answers"] == ["yes", "no", "maybe", "not sure"]


def test_another_list_makes_another_data_set_of_the_same_files(source: Path, convert: Convert) -> None:
    layouts.vqa_official(source)
    found = []
    for answers in (["yes", "no"], ["no", "yes"], ["red", "blue"], ["yes", "no"]):
        layouts.write(source / "answer_list.json", answers)
        found.append(convert("vqa_v2"))
    assert all(made.manifest["files"] == found[0].manifest["files"] for made in found)
    assert all(made.manifest["content_hash"] == made.content_hash for made in found)
    assert len({made.content_hash for made in found}) == 3 and found[0].content_hash == found[3].content_hash


def test_too_few_questions_for_a_list_is_said(source: Path, convert: Convert) -> None:
    layouts.vqa_official(source, train=1, val=3)
    with pytest.raises(DataError, match=r"no answer is the most common one of 9 questions; give an answer_list.json"):
        convert("vqa_v2")


def test_visual_genome_is_trained_on_but_for_images_that_are_held_out(source: Path, convert: Convert) -> None:
    layouts.vqa_official(source)
    val, test = held_out()
    layouts.visual_genome(source, {2001: None, 2002: 3, 2003: int(min(val)), 2004: int(min(test))})
    made = convert("vqa_v2")
    genome = {id: row for id, row in rows(made, "train").items() if id.startswith("vg_")}
    assert set(genome) == {"vg_2001", "vg_2002"}
    # the published code gives its answers this weight; they are written as those of VQA are
    asked = genome["vg_2002"]["questions"][1]
    assert asked["question_id"] == "vg_20021" and asked["answers"] == ["on the wall"]
    assert asked["weights"] == pytest.approx([0.2])
    assert genome["vg_2002"]["image"] == layouts.jpeg(2002)
    assert made.manifest["skipped"] == {
        "Visual Genome questions about COCO images that are held out of training": 4,
    }


def test_visual_genome_without_the_file_that_says_which_images_are_coco_is_refused(
    source: Path, convert: Convert
) -> None:
    layouts.vqa_official(source)
    layouts.visual_genome(source, {2001: None})
    (source / "visual_genome" / "image_data.json").unlink()
    with pytest.raises(DataError, match=r"no visual_genome/image_data.json, which says which"):
        convert("vqa_v2")


def test_a_question_without_annotation_is_named(source: Path, convert: Convert) -> None:
    layouts.vqa_official(source)
    path = source / "v2_mscoco_train2014_annotations.json"
    document = json.loads(path.read_text())
    del document["annotations"][4]
    layouts.write(path, document)
    with pytest.raises(DataError, match=r"question 2001: has no answers in v2_mscoco_train2014_annotations.json"):
        convert("vqa_v2")
