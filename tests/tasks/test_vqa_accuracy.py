"""Accuracy of answers: hand computed, and against leaving annotators out one by one."""

import pytest

from upop_ray.data.questions import Question
from upop_ray.tasks.vqa_accuracy import accuracies, accuracy_of, is_yes_no, normalised


def one_by_one(answer: str, given: list[str]) -> float:
    """The challenge's definition: each annotator is left out in turn."""
    others = [given[:place] + given[place + 1 :] for place in range(len(given))]
    return sum(min(rest.count(answer) / 3, 1) for rest in others) / len(given)


@pytest.mark.parametrize("count", range(11))
def test_accuracy_leaves_each_annotator_out_in_turn(count: int) -> None:
    given = ["cat"] * count + ["dog"] * (10 - count)
    pairs = [(text, given.count(text) / 10) for text in ("cat", "dog") if text in given]
    question = Question(0, "what", *(tuple(column) for column in zip(*pairs, strict=True)))
    assert accuracy_of("cat", question) == pytest.approx(one_by_one("cat", given))
    assert accuracy_of("bird", question) == 0


def test_a_single_answer_is_exact_match() -> None:
    question = Question(0, "what", ("The Cat.",), (1.0,))
    assert accuracy_of("cat", question) == 1 and accuracy_of("cats", question) == 0


def test_answers_that_are_the_same_when_normalised_count_together() -> None:
    assert accuracy_of("2", Question(0, "how many", ("two", "2", "3"), (0.2, 0.1, 0.7))) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Cat", "cat"),
        ("a dog and an apple", "dog and apple"),
        ("two", "2"),
        ("None", "0"),
        ("ten o'clock", "10 oclock"),
        ("don't", "dont"),
        ("dont", "dont"),
        ("yes.", "yes"),
        ("3.5", "3.5"),
        ("1,000", "1000"),
        ("red, white/blue", "red white blue"),
        ("t-shirt", "t shirt"),
        ("10:30", "10:30"),
        ("  what? ", "what"),
        ("theatre", "theatre"),
        ("", ""),
    ],
)
def test_normalised(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_kinds_of_questions() -> None:
    assert is_yes_no(Question(0, "", ("maybe", "Yes"), (0.4, 0.6)))
    assert not is_yes_no(Question(0, "", ("maybe", "yes"), (0.6, 0.4)))


def test_accuracies_are_percent_over_all_and_by_kind() -> None:
    yes, red = Question(0, "", ("yes",), (1.0,)), Question(0, "", ("red",), (1.0,))
    found = accuracies(["yes", "red", "blue", "red"], [yes, red, red, red])
    assert found == {"accuracy": 75, "accuracy/yes_no": 100, "accuracy/other": pytest.approx(200 / 3)}
    assert accuracies(["no"], [yes]) == {"accuracy": 0, "accuracy/yes_no": 0}
