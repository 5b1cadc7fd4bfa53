"""Values of rows that have several each, and columns of another type than a task expects."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.datasets import drawing, write_dataset
from upop_ray.data.captions import load_captions
from upop_ray.data.image_text import load_image_text
from upop_ray.data.pairs import load_pairs
from upop_ray.data.questions import load_questions
from upop_ray.data.splits import Nested
from upop_ray.errors import DataError

LISTS = [["a", "b"], [], ["c"], None, ["d", "e", "f"]]
CHUNKED = pa.chunked_array([pa.array(LISTS[:2]), pa.array(LISTS[2:])])


def test_values_are_numbered_through_the_rows() -> None:
    nested = Nested.of(CHUNKED)
    assert len(nested) == 6 and nested.counts.tolist() == [2, 0, 1, 0, 3]
    assert nested.rows_of(np.arange(6)).tolist() == [0, 0, 2, 4, 4, 4]
    assert nested.take(np.array([5, 0, 2])) == ["f", "a", "c"]
    assert list(nested) == [["a", "b"], [], ["c"], [], ["d", "e", "f"]]


def test_a_column_of_single_values_is_one_of_lists_of_one() -> None:
    nested = Nested.single(pa.chunked_array([["x", "y"], ["z"]]))
    assert nested.counts.tolist() == [1, 1, 1] and list(nested) == [["x"], ["y"], ["z"]]
    assert nested.rows_of(np.array([2, 0])).tolist() == [2, 0]


def test_texts_travel_as_one_buffer() -> None:
    """A hundred thousand captions of five each take little more than their letters, and no time."""
    nested = Nested.of(pa.chunked_array([[["a dog runs"] * 5] * 20_000]))
    assert len(pickle.dumps(nested)) < 100_000 * (10 + 4) + 20_000 * 16 + 2000
    assert pickle.loads(pickle.dumps(nested)).row(19_999) == ["a dog runs"] * 5


CASES: list[tuple[Any, dict[str, Any], str]] = [
    (load_captions, {"captions": "a dog"}, r"column captions holds string, and should hold list<item: string>"),
    (load_captions, {"label": None}, "row 0: has no label"),
    (load_image_text, {"image_id": "0", "captions": "a dog"}, "column captions holds string"),
    (load_image_text, {"captions": ["a dog"]}, "no column image_id"),
    (
        load_questions,
        {"questions": ["what"]},
        "column questions holds list<.*should hold lists of question, answers",
    ),
    (load_questions, {"questions": "what"}, "column questions holds string"),
    (load_questions, {"questions": [{"question": "what"}]}, "column questions holds list<.*answers and weights"),
    (load_pairs, {"statement": "a", "label": "perhaps"}, "column label holds string, and should hold bool"),
    (load_pairs, {"statement": None, "label": True}, "column statement holds null|row 0: has no statement"),
]


@pytest.mark.parametrize(("load", "row", "message"), CASES)
def test_a_column_of_another_kind_is_an_error_of_one_line(
    tmp_path: Path, load: Any, row: dict[str, Any], message: str
) -> None:
    images = {"left": drawing(0), "right": drawing(1)} if load is load_pairs else {"image": drawing(0)}
    with pytest.raises(DataError, match=message) as caught:
        load(write_dataset(tmp_path, {"train": [images | row]}), "train")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
