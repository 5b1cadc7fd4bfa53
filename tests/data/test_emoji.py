"""Facts about the shipped data."""

import io
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from upop_ray.data.shards import BUILTIN_FOLDERS, open_dataset

Row = dict[str, Any]
FOLDER = BUILTIN_FOLDERS["builtin:emoji"]
PERMISSIVE = {"MIT", "Apache-2.0", "CC-BY-4.0"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    dataset = open_dataset("builtin:emoji")
    return [row for split in dataset.splits for row in dataset.split(split).to_pylist()]


def test_the_manifest_tells_what_is_there(rows: list[Row]) -> None:
    dataset = open_dataset("builtin:emoji")
    assert dataset.manifest["rows"] == Counter(row["split"] for row in rows)
    assert dataset.manifest["licences"] == Counter(row["licence"] for row in rows)
    assert dataset.manifest["content_hash"] == dataset.content_hash
    for entry in dataset.manifest["files"]:
        assert set(pq.read_table(FOLDER / entry["path"])["split"].to_pylist()) == {entry["split"]}


def test_files_are_small_and_all_listed() -> None:
    listed = {entry["path"]: entry["bytes"] for entry in open_dataset("builtin:emoji").manifest["files"]}
    present = {path.relative_to(FOLDER).as_posix(): path.stat().st_size for path in FOLDER.rglob("*.parquet")}
    assert listed == present
    assert max(present.values()) < 4e6


def test_every_style_is_permissive_and_attributed(rows: list[Row]) -> None:
    text = (FOLDER / "ATTRIBUTION.md").read_text()
    images = Counter((row["style"], row["licence"]) for row in rows)
    assert {licence for _, licence in images} == PERMISSIVE
    for (style, licence), count in images.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {style} | {count} |"))
        assert f"| {licence} |" in line


def test_no_flags_and_no_gendered_variants(rows: list[Row]) -> None:
    assert "flags" not in {row["group"] for row in rows}
    assert not [row for row in rows if "200D-2640" in row["concept"] or "200D-2642" in row["concept"]]


def test_a_drawing_of_one_family_is_in_one_split(rows: list[Row]) -> None:
    splits: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        splits.setdefault((row["concept"], row["style_family"]), set()).add(row["split"])
    assert {len(of_pair) for of_pair in splits.values()} == {1}
    assert {row["style_family"] for row in rows if row["style"].startswith("fluent")} == {"fluent"}


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_has_one_image_of_concepts_that_another_style_shows_in_training(rows: list[Row], split: str) -> None:
    trained = {row["concept"] for row in rows if row["split"] == "train"}
    concepts = [row["concept"] for row in rows if row["split"] == split]
    assert len(concepts) == len(set(concepts)) > 500
    assert set(concepts) <= trained


def test_captions_are_fixed_in_evaluation_and_drawn_in_training(rows: list[Row]) -> None:
    assert {len(row["captions"]) for row in rows if row["split"] == "train"} == {0}
    assert {len(row["captions"]) for row in rows if row["split"] != "train"} == {3}
    assert all(row["captions"][0] == row["label"] for row in rows if row["captions"])


def test_a_quarter_of_many_tags_is_held_out(rows: list[Row]) -> None:
    for row in rows:
        known, secret = set(row["tags"]), set(row["held_out_tags"])
        assert not known & secret
        assert len(secret) == len(known | secret) // 4


def test_held_out_tags_are_asked_for(rows: list[Row]) -> None:
    evaluated = [row for row in rows if row["captions"] and set(row["held_out_tags"]) - {row["label"]}]
    assert all(set(row["held_out_tags"]) & set(row["captions"][2].split(", ")) for row in evaluated)


def test_images_are_64_pixels_wide_with_at_most_64_colours(rows: list[Row]) -> None:
    for row in rows[::50]:
        image = Image.open(io.BytesIO(row["image"]))
        assert image.size == (64, 64)
        assert image.convert("RGB").getcolors(64) is not None
