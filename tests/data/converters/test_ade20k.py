"""ADE20K: maps are renumbered, a part of training is held out."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import layouts
from tests.data.converters.conftest import Convert, rows
from upop_ray.errors import DataError


def test_maps_hold_the_place_in_the_list_of_classes_and_255_where_there_is_none(source: Path, convert: Convert) -> None:
    layouts.ade20k(source)
    made = convert("ade20k")
    assert made.manifest["classes"] == [f"thing {number}, object {number}" for number in range(1, 151)]
    for number in range(1, 5):
        row = rows(made, "test")[f"ADE_val_{number:08d}"]
        stored = Image.open(io.BytesIO(row["segmentation"]))
        expected = np.full((16, 24), number - 1)
        # the source has 0, 1 and 150 there
        expected[0, :3] = (255, 0, 149)
        assert stored.mode == "L" and stored.format == "PNG"
        np.testing.assert_array_equal(np.asarray(stored), expected)
        assert row["image"] == layouts.jpeg(number)


def test_a_twentieth_of_training_is_held_out_to_choose(source: Path, convert: Convert) -> None:
    layouts.ade20k(source, train=30)
    made = convert("ade20k")
    ids = [f"ADE_train_{number:08d}" for number in range(1, 31)]
    # 30 / 20 rounded up, by smallest hash
    held = set(sorted(ids, key=lambda id: hashlib.sha256(f"ade20k/{id}".encode()).digest())[:2])
    assert set(rows(made, "val")) == held and set(rows(made, "train")) == set(ids) - held


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        (np.full((16, 24), 151, np.uint8), "the map has class 151, the highest is 150"),
        (np.full((8, 24), 1, np.uint8), r"the map is L \(24, 8\), it must be one index for each pixel of \(24, 16\)"),
        (np.zeros((16, 24, 3), np.uint8), "the map is RGB"),
    ],
)
def test_a_map_that_is_none_is_listed_as_broken(
    numbers: np.ndarray, problem: str, source: Path, convert: Convert
) -> None:
    layouts.ade20k(source)
    Image.fromarray(numbers).save(
        source / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000002.png"
    )
    with pytest.raises(DataError, match=rf"1 of 14 rows .*annotations/validation/ADE_val_00000002.png: {problem}"):
        convert("ade20k")


def test_the_folder_itself_will_do_as_source(source: Path, convert: Convert) -> None:
    layouts.ade20k(source / "above")
    (source / "above" / "ADEChallengeData2016").rename(source / "inside")
    for path in list((source / "inside").iterdir()):
        path.rename(source / path.name)
    assert len(rows(convert("ade20k"), "test")) == 4
