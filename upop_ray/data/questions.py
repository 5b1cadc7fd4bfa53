"""Images with questions, each with weighted answers; a batch is drawn over questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from upop_ray.data.batches import ShuffledBatches
from upop_ray.data.images import decode_all
from upop_ray.data.order import Cursor
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import DataError

_COLUMNS = ("image", "questions")


@dataclass(frozen=True)
class Question:
    """A question about an image of its split.

    :param image: number of the image in the split
    :param answers: at least one
    :param weights: share of the annotators who gave each answer, in (0, 1]
    """

    image: int
    text: str
    answers: tuple[str, ...]
    weights: tuple[float, ...]

    def heaviest(self, count: int) -> list[tuple[str, float]]:
        """The `count` answers of largest weight with their weights, heaviest first; equal ones in their order."""
        pairs = zip(self.answers, self.weights, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:count]


@dataclass(frozen=True)
class QuestionSplit:
    """A split held in memory.

    :param images: uint8 (N, 3, H, W)
    :param questions: those of all images, in the order of the images
    """

    images: Tensor
    questions: tuple[Question, ...]

    def __len__(self) -> int:
        return len(self.questions)

    def images_of(self, rows: Tensor) -> Tensor:
        """The images, uint8 (b, 3, H, W), of questions, int64 (b,)."""
        return self.images[torch.tensor([self.questions[row].image for row in rows.tolist()])]


def load_questions(dataset: ShardedDataset, split: str) -> QuestionSplit:
    """Read and decode a split: columns `image`, and `questions`, a list of {question, answers, weights}.

    :raises DataError: see :meth:`ShardedDataset.split`; no question at all, one that lacks answers, or a weight outside
        (0, 1]; an image that cannot be decoded, or of another size
    """
    table, place = dataset.split(split, columns=_COLUMNS), f"{dataset.root}, split {split}"
    questions = tuple(
        _question(image, entry, f"{place}, row {image}")
        for image, entries in enumerate(table["questions"].to_pylist())
        for entry in entries
    )
    if not questions:
        raise DataError(f"{place}: has no questions")
    return QuestionSplit(decode_all(table["image"].to_pylist(), place), questions)


def answer_list(dataset: ShardedDataset) -> tuple[str, ...]:
    """The answers that a model may choose from, as the manifest lists them.

    :raises DataError: it lists none, or one twice
    """
    answers = tuple(dataset.manifest.get("answers", ()))
    if not answers or len(set(answers)) < len(answers):
        raise DataError(f"{dataset.root}: the manifest's `answers` must list each answer that can be given, once")
    return answers


def _question(image: int, entry: Mapping[str, Any], place: str) -> Question:
    text, answers, weights = entry["question"], entry["answers"], entry["weights"]
    if not answers or len(answers) != len(weights):
        raise DataError(f"{place}: {text!r} has {len(answers)} answers and {len(weights)} weights; give each a weight")
    if not all(0 < weight <= 1 for weight in weights):
        raise DataError(f"{place}: {text!r} has weights {weights}; a weight is a share of annotators, in (0, 1]")
    return Question(image, text, tuple(answers), tuple(weights))


@dataclass(frozen=True)
class QuestionBatch:
    """pixel_values float32 (b, 3, S, S), and b questions."""

    pixel_values: Tensor
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class QuestionBatches(ShuffledBatches[QuestionSplit]):
    """Questions with their images, augmented."""

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> QuestionBatch:
        """Return the part of a rank of a global batch; see :meth:`Order.step`."""
        step = self.order.step(cursor, rank, world_size)
        images = self.split.images_of(torch.from_numpy(step.own))
        questions = tuple(self.split.questions[row] for row in step.own)
        return QuestionBatch(self.preprocessing.augmented(images, step), questions)
