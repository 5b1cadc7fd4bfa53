"""Images with questions, each with weighted answers; a batch is drawn over questions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from upop_ray.data.batches import Batches, own_places
from upop_ray.data.order import Cursor
from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.splits import Nested, read_rows
from upop_ray.errors import DataError

_AT_ONCE = 1024


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
    """A split; each question is an example.

    :param asked: the questions of each row with their answers, as they are stored
    """

    pictures: Pictures
    asked: Nested

    @property
    def examples_per_row(self) -> np.ndarray:
        """How many questions each row has, int64 (rows,)."""
        return self.asked.counts

    def __len__(self) -> int:
        return len(self.asked)

    def questions(self, examples: np.ndarray) -> tuple[Question, ...]:
        """These questions."""
        pairs = zip(self.asked.rows_of(examples), self.asked.take(examples), strict=True)
        return tuple(
            Question(int(image), entry["question"], tuple(entry["answers"]), tuple(entry["weights"]))
            for image, entry in pairs
        )

    def __iter__(self) -> Iterator[Question]:
        """All questions, made a few at a time."""
        for first in range(0, len(self), _AT_ONCE):
            yield from self.questions(np.arange(first, min(first + _AT_ONCE, len(self))))


def load_questions(dataset: ShardedDataset, split: str) -> QuestionSplit:
    """Read a split: columns `image`, and `questions`, a list of {question, answers, weights}.

    :raises DataError: see :func:`read_rows`; no question at all, one that lacks answers, or a weight outside (0, 1]
    """
    table, (pictures,) = read_rows(dataset, split, ("questions",))
    asked = Nested.of(_asked(table["questions"], pictures.place))
    if len(asked) == 0:
        raise DataError(f"{pictures.place}: has no questions")
    _require_answers(asked, pictures.place)
    return QuestionSplit(pictures, asked)


def answer_list(dataset: ShardedDataset) -> tuple[str, ...]:
    """The answers that a model may choose from, as the manifest lists them.

    :raises DataError: it lists none, or one twice
    """
    answers = tuple(dataset.manifest.get("answers", ()))
    if not answers or len(set(answers)) < len(answers):
        raise DataError(f"{dataset.root}: the manifest's `answers` must list each answer that can be given, once")
    return answers


def _asked(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not pa.types.is_struct(kind) or not {"question", "answers", "weights"} <= {field.name for field in kind}:
        raise DataError(
            f"{place}: column questions holds {column.type}, and should hold lists of question, answers and weights"
        )
    return column


def _require_answers(asked: Nested, place: str) -> None:
    fields = {name: asked.values.field(name) for name in ("answers", "weights")}
    answers, weights = (_counts(lists) for lists in fields.values())
    light = pc.or_(pc.less_equal(fields["weights"].flatten(), 0), pc.greater(fields["weights"].flatten(), 1))
    # the question of each weight that is none
    owners = np.repeat(np.arange(len(weights)), weights)[pc.fill_null(light, True).to_numpy(zero_copy_only=False)]
    uneven = np.flatnonzero((answers == 0) | (answers != weights))
    if len(uneven) or len(owners):
        _refuse(asked, int(min([*uneven[:1], *owners[:1]])), place)


def _refuse(asked: Nested, example: int, place: str) -> None:
    row, (entry,) = asked.rows_of(np.array([example]))[0], asked.take(np.array([example]))
    text, answers, weights = entry["question"], entry["answers"] or [], entry["weights"] or []
    if not answers or len(answers) != len(weights):
        problem = f"has {len(answers)} answers and {len(weights)} weights; give each a weight"
    else:
        problem = f"has weights {weights}; a weight is a share of annotators, in (0, 1]"
    raise DataError(f"{place}, row {row}: {text!r} {problem}")


def _counts(lists: pa.Array) -> np.ndarray:
    counts: np.ndarray = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return counts


@dataclass(frozen=True)
class QuestionBatch:
    """pixel_values float32 (b, 3, S, S), and b questions."""

    pixel_values: Tensor
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class QuestionBatches(Batches[QuestionSplit]):
    """Questions with their images, augmented."""

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> QuestionBatch:
        """Return the part of a rank of a global batch; see :meth:`BatchOrder.step`."""
        step = self.order.step(cursor, rank, world_size)
        rows = self.split.asked.rows_of(step.own)
        pixels = self.views.training(self.split.pictures, rows, step, own_places(step))
        return QuestionBatch(pixels, self.split.questions(step.own))
