"""Facts about the built-in data sets that are derived from the emoji shards."""

import hashlib
import inspect
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import upop_ray
from upop_ray.data.emoji.annotated import read_emoji
from upop_ray.data.emoji.colours import COLOURS, main_colours, name, shares
from upop_ray.data.emoji.nouns import NOUNS, WIDE_NOUNS
from upop_ray.data.emoji.rows import palette_png
from upop_ray.data.emoji.yes_no import ask
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.errors import DataError

Row = dict[str, Any]
SPLITS = ("train", "val", "test")
NAMES = ("emoji_classes", "emoji_pairs", "emoji_questions")
COLUMNS = {
    "emoji_classes": ["image", "class", "licence"],
    "emoji_pairs": ["left", "right", "statement", "label"],
    "emoji_questions": ["image", "questions", "licence"],
}
EMOJI = open_dataset("builtin:emoji")


def derived(name: str) -> ShardedDataset:
    return open_dataset(f"builtin:{name}")


def questions(split: str) -> list[list[Row]]:
    rows: list[list[Row]] = derived("emoji_questions").split(split, ["questions"])["questions"].to_pylist()
    return rows


def answered(split: str) -> dict[str, Counter[str]]:
    """Question -> how often each answer is given to it."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in questions(split):
        for entry in row:
            found[entry["question"]][entry["answers"][0]] += 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_derived_data_set_looks_like_a_sharded_one(name: str) -> None:
    dataset = derived(name)
    assert dataset.splits == SPLITS
    assert dataset.manifest["content_hash"] == dataset.content_hash
    for split in SPLITS:
        table = dataset.split(split)
        assert table.column_names == COLUMNS[name]
        assert table.num_rows == dataset.manifest["rows"][split]
    assert dataset.split("val", COLUMNS[name][:1]).column_names == COLUMNS[name][:1]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_there_is_said_with_what_is(name: str) -> None:
    with pytest.raises(DataError, match=f"builtin:{name}: no split 'all'; it has train, val, test"):
        derived(name).split("all")
    with pytest.raises(DataError, match=f"builtin:{name}: no column pixels; it has {', '.join(COLUMNS[name])}"):
        derived(name).split("val", ["pixels"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_image_is_one_of_the_same_split(name: str, split: str) -> None:
    table = derived(name).split(split)
    columns = [column for column in ("image", "left", "right") if column in table.column_names]
    shown = {image for column in columns for image in table[column].to_pylist()}
    assert shown <= {row.image for row in read_emoji(EMOJI, split)}


def digest(name: str) -> str:
    dataset = derived(name)
    content = hashlib.sha256(repr(dataset.manifest).encode())
    for split in dataset.splits:
        table = dataset.split(split)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        content.update(sink.getvalue())
    return content.hexdigest()


def test_another_process_derives_the_same_whatever_its_hash_seed() -> None:
    # an empty package in place of upop_ray, which loads transformers when imported
    lines = [
        "import hashlib, sys, types, pyarrow as pa",
        "package = sys.modules['upop_ray'] = types.ModuleType('upop_ray')",
        "package.__path__ = [sys.argv[1]]",
        "from upop_ray.data.shards import open_dataset",
        "derived = lambda name: open_dataset(f'builtin:{name}')",
        inspect.getsource(digest),
        "print(*map(digest, sys.argv[2:]))",
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(Path(upop_ray.__file__).parent), *NAMES]
    # the seed of this process is another one: random, unless it is set
    other = os.environ | {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    run = subprocess.run(command, env=other, check=True, capture_output=True, text=True)
    assert run.stdout.split() == [digest(name) for name in NAMES]


@pytest.mark.parametrize("split", SPLITS)
def test_every_yes_or_no_question_is_answered_with_yes_as_often_as_with_no(split: str) -> None:
    closed = {question: answers for question, answers in answered(split).items() if set(answers) & {"yes", "no"}}
    assert len(closed) > 150
    assert {question: answers for question, answers in closed.items() if answers["yes"] != answers["no"]} == {}


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_question_of_evaluation_has_a_listed_answer_and_known_words(split: str) -> None:
    assert {answer for answers in answered(split).values() for answer in answers} <= set(
        derived("emoji_questions").manifest["answers"]
    )
    assert set(answered(split)) <= set(answered("train"))


def test_answers_are_short_and_the_most_frequent_come_first() -> None:
    answers = derived("emoji_questions").manifest["answers"]
    given: Counter[str] = sum(answered("train").values(), Counter())
    assert len(set(answers)) == len(answers) > 1000
    assert answers == sorted(given, key=lambda answer: (-given[answer], answer))
    assert all(answer == answer.lower() and len(answer.split()) <= 3 for answer in answers)


def test_each_drawing_is_asked_several_different_things() -> None:
    for split in SPLITS:
        rows = questions(split)
        assert np.mean([len(row) for row in rows]) > 6
        assert max(map(len, rows)) <= 8
        assert all(len({entry["question"] for entry in row}) == len(row) for row in rows)
        assert {(len(entry["answers"]), *entry["weights"]) for row in rows for entry in row} == {(1, 1.0)}


def test_training_neither_affirms_nor_denies_what_is_held_out() -> None:
    for row, asked in zip(read_emoji(EMOJI, "train"), questions("train"), strict=True):
        words = {entry["question"].removeprefix("is it about ").removesuffix("?") for entry in asked}
        assert not {form for tag in row.held_out_tags for form in (tag, f"a {tag}", f"an {tag}", f"the {tag}")} & words


def test_nothing_annotated_is_denied() -> None:
    for row, asked in zip(read_emoji(EMOJI, "val"), questions("val"), strict=True):
        denied = {entry["question"] for entry in asked if entry["answers"] == ["no"]}
        assert f"does it show {NOUNS[row.subgroup].phrase}?" not in denied
        assert not {f"is it about {tag}?" for tag in (*row.tags, *row.held_out_tags)} & denied


@pytest.mark.parametrize("split", SPLITS)
def test_every_statement_is_true_of_as_many_pairs_as_it_is_false_of(split: str) -> None:
    labels: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    for row in derived("emoji_pairs").split(split, ["statement", "label"]).to_pylist():
        labels[row["statement"]][row["label"]] += 1
    assert len(labels) == derived("emoji_pairs").manifest["statements"][split] > 400
    assert {statement for statement, counts in labels.items() if counts[True] != counts[False]} == set()


def test_statements_of_evaluation_are_known_from_training() -> None:
    statements = {split: set(derived("emoji_pairs").split(split)["statement"].to_pylist()) for split in SPLITS}
    assert statements["val"] | statements["test"] <= statements["train"]
    assert derived("emoji_pairs").manifest["rows"] == {"train": 16_000, "val": 2_000, "test": 2_000}


def test_statements_say_what_the_annotations_say() -> None:
    holds = {
        "both images show a bird": lambda left, right: left and right,
        "at least one image shows a bird": lambda left, right: left or right,
        "neither image shows a bird": lambda left, right: not (left or right),
        "exactly one image shows a bird": lambda left, right: left != right,
        "the left image shows a bird": lambda left, right: left,
        "the right image shows a bird": lambda left, right: right,
    }
    birds = {row.image for row in read_emoji(EMOJI, "train") if row.subgroup == "animal-bird"}
    rows = [row for row in derived("emoji_pairs").split("train").to_pylist() if row["statement"] in holds]
    assert {row["statement"] for row in rows} == set(holds)
    assert all(row["label"] == holds[row["statement"]](row["left"] in birds, row["right"] in birds) for row in rows)


@pytest.mark.parametrize("split", SPLITS)
def test_images_alone_do_not_tell_whether_a_statement_is_true(split: str) -> None:
    groups = {row.image: row.group for row in read_emoji(EMOJI, split)}
    subgroups = {row.image: row.subgroup for row in read_emoji(EMOJI, split)}
    labels: defaultdict[Any, list[bool]] = defaultdict(list)
    for row in derived("emoji_pairs").split(split).to_pylist():
        labels[subgroups[row["left"]] == subgroups[row["right"]]].append(row["label"])
        for image in (row["left"], row["right"]):
            labels[groups[image]].append(row["label"])
    for of_kind in labels.values():
        # three standard errors of a fair coin
        assert np.mean(of_kind) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(len(of_kind)))


def test_a_pair_shows_two_images_and_is_asked_about_once() -> None:
    rows = [tuple(row.values()) for row in derived("emoji_pairs").split("train").to_pylist()]
    assert len(set(rows)) == len(rows)
    # two styles draw a few things alike
    assert sum(left == right for left, right, *_ in rows) < 0.005 * len(rows)


def test_classes_are_those_that_training_shows_often() -> None:
    dataset = derived("emoji_classes")
    classes = dataset.manifest["classes"]
    counts = {split: Counter(dataset.split(split)["class"].to_pylist()) for split in SPLITS}
    assert classes == sorted(counts["train"])
    assert len(classes) > 80 and min(counts["train"].values()) >= 20
    assert set(counts["val"]) | set(counts["test"]) <= set(classes)
    everywhere = Counter(NOUNS[row.subgroup].name for row in read_emoji(EMOJI, "val"))
    assert counts["val"] == {label: count for label, count in everywhere.items() if label in classes}


def test_every_subgroup_has_a_noun_of_its_own() -> None:
    assert {row.subgroup for split in SPLITS for row in read_emoji(EMOJI, split)} <= set(NOUNS)
    assert len({noun.name for noun in NOUNS.values()}) == len(NOUNS)
    for noun in (*NOUNS.values(), *WIDE_NOUNS):
        assert noun.subgroups
        assert all(any(subgroup.startswith(beginning) for subgroup in NOUNS) for beginning in noun.unclear)


def test_what_may_be_shown_is_neither_affirmed_nor_denied() -> None:
    animal = next(noun for noun in WIDE_NOUNS if noun.phrase == "an animal")
    assert (animal.name, NOUNS["sky-weather"].name) == ("animal", "sky or weather")
    assert "animal-bird" in animal.subgroups and not animal.clearly_not("animal-bird")
    assert "cat-face" not in animal.subgroups and not animal.clearly_not("cat-face")
    assert animal.clearly_not("keycap")


@pytest.mark.parametrize(
    ("colour", "rgb"),
    [
        ("red", (220, 30, 40)),
        ("orange", (255, 130, 10)),
        ("yellow", (255, 204, 77)),
        ("green", (50, 160, 60)),
        ("blue", (40, 110, 220)),
        ("purple", (130, 80, 190)),
        ("pink", (250, 160, 190)),
        ("brown", (120, 70, 40)),
        ("grey", (128, 128, 128)),
        ("black", (20, 20, 25)),
        ("white", (240, 240, 240)),
    ],
)
def test_colours_have_the_names_that_people_use(colour: str, rgb: tuple[int, int, int]) -> None:
    assert COLOURS[name(np.array(rgb, np.uint8))] == colour


def test_the_main_colour_is_that_of_half_the_ink_and_paper_does_not_count() -> None:
    image = Image.new("RGB", (10, 10), "white")
    image.paste((0, 0, 255), (0, 0, 3, 1))
    image.paste((255, 0, 0), (0, 1, 1, 2))
    measured = shares([palette_png(image), palette_png(Image.new("RGB", (10, 10), "white"))])
    assert measured[0, COLOURS.index("blue")] == 0.75 and measured[0, COLOURS.index("red")] == 0.25
    assert main_colours(measured) == ["blue", None]


def test_things_are_denied_of_others_as_often_as_they_are_affirmed() -> None:
    own = [["cat"] if row % 3 else ["dog", "pet"] for row in range(300)] + [[]]
    asked = ask(own, lambda row, thing: thing not in own[row], np.random.default_rng(0))
    assert len({question.row for question in asked}) == len(asked) >= 100
    assert all((question.thing in own[question.row]) == question.answer for question in asked)
    counts = Counter((question.thing, question.answer) for question in asked)
    assert all(counts[thing, True] == counts[thing, False] for thing in ("cat", "dog", "pet"))


def test_what_cannot_be_denied_of_anybody_is_not_affirmed_either() -> None:
    assert ask([["cat"]] * 10, lambda row, thing: False, np.random.default_rng(0)) == []
