"""Questions about images: rows flattened, batches over questions, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.datasets import drawing, encoded
from tests.tasks.texts import write_dataset
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Cursor, Order
from upop_ray.data.pictures import HeldPictures
from upop_ray.data.questions import Question, QuestionBatches, QuestionSplit, answer_list, load_questions
from upop_ray.data.shards import open_dataset
from upop_ray.data.splits import Nested
from upop_ray.data.views import Drawings
from upop_ray.errors import ConfigError, DataError

PREPROCESSING = Preprocessing(8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
ROWS = [
    {
        "questions": [
            {"question": "what is it", "answers": ["cat", "pet"], "weights": [0.7, 0.3]},
            {"question": "is it red", "answers": ["no"], "weights": [1.0]},
        ]
    },
    {"questions": []},
    {"questions": [{"question": "what colour", "answers": ["blue"], "weights": [1.0]}]},
]


def split_of(contents: Sequence[bytes] = tuple(drawing(row) for row in range(9))) -> QuestionSplit:
    """Two questions an image."""
    asked = [
        [{"question": f"{number}", "answers": ["yes"], "weights": [1.0]} for number in (2 * row, 2 * row + 1)]
        for row in range(len(contents))
    ]
    return QuestionSplit(HeldPictures(contents, "somewhere"), Nested.of(pa.chunked_array([asked])))


def batches(split: QuestionSplit | None = None, batch_size: int = 6) -> QuestionBatches:
    split = split or split_of()
    return QuestionBatches(split, Order(len(split), batch_size, seed=5), Drawings(PREPROCESSING))


def test_rows_are_flattened_to_questions(tmp_path: Path) -> None:
    split = load_questions(write_dataset(tmp_path, {"train": ROWS}), "train")
    assert [(question.image, question.text) for question in split] == [
        (0, "what is it"),
        (0, "is it red"),
        (2, "what colour"),
    ]
    (first,) = split.questions(np.array([0]))
    assert first.answers == ("cat", "pet") and first.weights == pytest.approx((0.7, 0.3))
    assert split.questions(np.array([2, 1])) == (list(split)[2], list(split)[1])
    assert len(split) == 3 and len(split.pictures) == 3 and split.examples_per_row.tolist() == [2, 0, 1]


def test_the_heaviest_answers_are_kept_in_their_order() -> None:
    question = Question(0, "", ("a", "b", "c", "d"), (0.1, 0.4, 0.4, 0.1))
    assert question.heaviest(3) == [("b", 0.4), ("c", 0.4), ("a", 0.1)]
    assert question.heaviest(9) == [("b", 0.4), ("c", 0.4), ("a", 0.1), ("d", 0.1)]


def test_an_epoch_shows_each_question_once_with_its_image() -> None:
    ours = batches()
    assert len(ours) == 3
    shown = [question for index in range(3) for question in ours.batch(Cursor(0, index)).questions]
    assert sorted(shown, key=lambda question: int(question.text)) == list(split_of())


def test_pixels_are_those_of_the_questions_images() -> None:
    # one colour an image, which no augmentation turns into another's: only one channel has ink
    pixels = np.full((9, 8, 8, 3), 255, np.uint8)
    for image in range(9):
        pixels[image, ..., image % 3] = 0
    batch = batches(split_of([encoded(image) for image in pixels])).batch(Cursor(0, 1))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    darkest = (batch.pixel_values * deviation + mean).sum((2, 3)).argmin(1)
    assert darkest.tolist() == [question.image % 3 for question in batch.questions]


def test_the_parts_of_the_ranks_are_the_global_batch() -> None:
    whole, parts = batches().batch(Cursor(1, 2)), [batches().batch(Cursor(1, 2), rank, 2) for rank in range(2)]
    assert torch.equal(whole.pixel_values, torch.cat([part.pixel_values for part in parts]))
    assert whole.questions == parts[0].questions + parts[1].questions


def test_a_batch_depends_on_its_place_alone() -> None:
    one, other = batches(), batches()
    one.batch(Cursor(0, 0))
    assert torch.equal(one.batch(Cursor(3, 1)).pixel_values, other.batch(Cursor(3, 1)).pixel_values)
    assert one.batch(Cursor(3, 1)).questions != one.batch(Cursor(4, 1)).questions


def test_fewer_questions_than_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        batches(batch_size=19)


@pytest.mark.parametrize(
    ("answers", "weights"), [([], []), (["a", "b"], [1.0]), (["a"], [0.0]), (["a"], [1.5]), (["a"], [-0.5])]
)
def test_bad_answers_are_refused(tmp_path: Path, answers: list[str], weights: list[float]) -> None:
    good = {"question": "good", "answers": ["a"], "weights": [1.0]}
    bad = {"question": "bad", "answers": answers, "weights": weights}
    dataset = write_dataset(tmp_path, {"train": [{"questions": [good]}, {"questions": [good, bad]}]})
    with pytest.raises(DataError, match="row 1: 'bad' has"):
        load_questions(dataset, "train")


@pytest.mark.parametrize("facts", [{}, {"answers": []}, {"answers": ["yes", "no", "yes"]}])
def test_an_answer_list_that_cannot_be_ranked_is_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="answers"):
        answer_list(write_dataset(tmp_path, {"train": ROWS}, **facts))


def test_the_built_in_questions_have_answers_of_the_list() -> None:
    dataset = open_dataset("builtin:emoji_questions")
    answers = set(answer_list(dataset))
    split = load_questions(dataset, "val")
    assert len(split) > 0 and all(set(question.answers) <= answers for question in split)
