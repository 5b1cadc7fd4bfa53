"""NLVR2: pairs, statements and labels from the owners' files and from BLIP's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.converters.conftest import Convert, rows
from upop_ray.errors import DataError


@pytest.mark.parametrize("layout", [layouts.nlvr_official, layouts.nlvr_blip])
def test_dev_validates_and_test_p_tests(layout: Callable[[Path], None], source: Path, convert: Convert) -> None:
    layout(source)
    made = convert("nlvr2")
    for split, name in {"train": "train", "val": "dev", "test": "test1"}.items():
        pairs = range(layouts.NLVR_PAIRS[name])
        assert rows(made, split, "identifier") == {
            f"{name}-{pair}-0-{sentence}": {
                "left": layouts.png(10 * pair),
                "right": layouts.png(10 * pair + 1),
                "statement": f"The left image has {sentence} dogs.",
                "label": sentence == 0,
                "identifier": f"{name}-{pair}-0-{sentence}",
            }
            for pair in pairs
            for sentence in range(2)
        }


def test_the_image_folders_may_lie_beside_the_annotations(source: Path, convert: Convert) -> None:
    layouts.nlvr_official(source)
    for name in layouts.NLVR_PAIRS:
        (source / "images" / name).rename(source / name)
    assert len(rows(convert("nlvr2"), "val", "identifier")) == 6


def test_a_label_that_is_none_is_named_with_its_line(source: Path, convert: Convert) -> None:
    layouts.nlvr_official(source)
    path = source / "data" / "dev.json"
    path.write_text(path.read_text().replace('"label": "False"', '"label": "perhaps"', 1))
    with pytest.raises(DataError, match=r"dev.json, line 2: label must be True or False, got 'perhaps'"):
        convert("nlvr2")


def test_a_line_that_is_not_json_is_named(source: Path, convert: Convert) -> None:
    layouts.nlvr_official(source)
    path = source / "data" / "test1.json"
    path.write_text(path.read_text() + '{"sentence": "cut o')
    with pytest.raises(DataError, match=r"test1.json, line 7: not JSON: .*; write one object a line"):
        convert("nlvr2")
