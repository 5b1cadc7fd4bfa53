"""Accuracy of answers as the VQA challenge counts it, from the share of annotators who gave each answer."""

import re
from collections.abc import Iterable
from statistics import fmean

from upop_ray.data.questions import Question

ANNOTATORS = 10
#: annotators who have to agree for full accuracy
_ENOUGH = 3
_ARTICLES = ("a", "an", "the")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
#: contractions are written with and without it
_APOSTROPHE = re.compile(r"['\u2019]")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_POINT_AFTER = re.compile(r"\.(?!\d)")
_PUNCTUATION = re.compile(r'[;/\[\]"{}()=+\\_\-><@,?!`]')


def normalised(answer: str) -> str:
    """An answer without case, articles, punctuation and apostrophes, numbers up to ten as digits."""
    text = _COMMA_IN_NUMBER.sub("", _APOSTROPHE.sub("", answer.lower()))
    text = _PUNCTUATION.sub(" ", _POINT_AFTER.sub("", text))
    return " ".join(_DIGITS.get(word, word) for word in text.split() if word not in _ARTICLES)


def accuracy_of(answer: str, question: Question) -> float:
    """Accuracy of one answer in [0, 1]: min(others who gave it / 3, 1), mean over each annotator left out in turn.

    With a single answer of weight 1 it is exact match.
    """
    given = normalised(answer)
    pairs = zip(question.answers, question.weights, strict=True)
    count = round(ANNOTATORS * sum(weight for text, weight in pairs if normalised(text) == given))
    agreeing, other = count * min((count - 1) / _ENOUGH, 1), (ANNOTATORS - count) * min(count / _ENOUGH, 1)
    return (agreeing + other) / ANNOTATORS


def is_yes_no(question: Question) -> bool:
    """Whether the heaviest answer is yes or no."""
    return normalised(question.heaviest(1)[0][0]) in ("yes", "no")


def accuracies(answers: Iterable[str], questions: Iterable[Question]) -> dict[str, float]:
    """``accuracy`` over all questions, ``accuracy/yes_no`` and ``accuracy/other`` over those of a kind, in percent.

    A kind that has no questions has no entry.
    """
    pairs = zip(answers, questions, strict=True)
    judged = [(100 * accuracy_of(answer, question), is_yes_no(question)) for answer, question in pairs]
    found = {"accuracy": fmean(value for value, _ in judged)}
    for name, wanted in (("yes_no", True), ("other", False)):
        chosen = [value for value, kind in judged if kind == wanted]
        if chosen:
            found[f"accuracy/{name}"] = fmean(chosen)
    return found
