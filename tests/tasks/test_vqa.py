"""Question answering: loss and ranking against loops over answers, generation, and two processes against one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.ranks import Ranks
from tests.tasks.texts import (
    END,
    PAD,
    QUESTION,
    START,
    VOCABULARY,
    experiment,
    ids,
    processor,
    tiny_model,
    write_dataset,
)
from upop_ray.data.order import Cursor
from upop_ray.data.questions import QuestionSplit, load_questions
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.data.splits import Nested
from upop_ray.errors import ConfigError, DataError
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.tasks import TASKS
from upop_ray.tasks.collective import average, rank, world_size
from upop_ray.tasks.vqa import Vqa, VqaBatch

ANSWERS = ["yes", "no", "red cat", "blue", "big dog on grass", "2", "red dog", "a", "big bird", "grass"]
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


def asked(question: str, **answers: float) -> dict[str, Any]:
    texts = [answer.replace("_", " ") for answer in answers]
    return {"question": question, "answers": texts, "weights": list(answers.values())}


TRAINING = [
    {"questions": [asked("what is it", red_cat=0.6, cat=0.3, a=0.1), asked("is it red", yes=1.0)]},
    {"questions": [asked("what colour is it", blue=0.9, red=0.1)]},
    {"questions": [asked("is it a big dog", no=0.7, yes=0.3), asked("what is on grass", big_dog=0.5, dog=0.5)]},
    {"questions": [asked("is it a bird", no=1.0), asked("what", a=0.2), asked("what is it a picture of", bird=1.0)]},
]
#: more questions than one part of an evaluation has
EVALUATION = [
    {
        "questions": [
            asked(f"what is it {' '.join(VOCABULARY[5 + row : 7 + row])}", blue=0.3, grass=0.3),
            asked("is it", no=1.0),
        ]
    }
    for row in range(18)
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    splits = {"train": TRAINING, "val": EVALUATION, "test": EVALUATION}
    return write_dataset(tmp_path_factory.mktemp("data") / "questions", splits, answers=ANSWERS)


def task_of(dataset: ShardedDataset, batch_size: int = 4, **settings: Any) -> Vqa:
    chosen = {"name": "vqa", "question_length": 12, "answer_length": 8} | settings
    return Vqa(experiment(chosen, batch_size), dataset, processor(), tiny_model(BlipVqa))


def in_double(batch: VqaBatch) -> VqaBatch:
    return replace(batch, pixel_values=batch.pixel_values.double())


def answer_loss(model: BlipVqa, pixels: Tensor, question: str, answer: str, smoothing: float) -> Tensor:
    """Token by token, without padding."""
    question_ids, answer_ids = (torch.tensor([tokens]) for tokens in (ids(question, QUESTION), ids(answer, START)))
    masks = (torch.ones_like(question_ids), torch.ones_like(answer_ids))
    output = model(pixels[None], question_ids, answer_ids, torch.tensor([0]), *masks)
    logs = output.logits[0].log_softmax(1)
    total = torch.zeros((), dtype=logs.dtype)
    for place, target in enumerate(answer_ids[0, 1:].tolist()):
        total = total - (1 - smoothing) * logs[place, target] - smoothing * logs[place].mean()
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_weighted_and_summed_over_the_answers_of_a_question(dataset: ShardedDataset, smoothing: float) -> None:
    task, model = task_of(dataset, label_smoothing=smoothing), tiny_model(BlipVqa)
    batch, drawn = in_double(task.batch(Cursor(), 0, 1)), task.batches.batch(Cursor())
    loss = task.loss(model, model, batch, Cursor())
    expected, tokens = torch.zeros((), dtype=torch.float64), 0
    for pixels, question in zip(batch.pixel_values, drawn.questions, strict=True):
        for answer, weight in zip(question.answers, question.weights, strict=True):
            expected = expected + weight * answer_loss(model, pixels, question.text, answer, smoothing)
            tokens += len(answer.split()) + 1
    # weights of a batch are fp32
    torch.testing.assert_close(loss.value, expected / 4, rtol=1e-6, atol=0)
    assert loss.logits.shape == (tokens, len(VOCABULARY))
    assert torch.equal(task.logits(model, batch), loss.logits)


def test_questions_and_answers_have_their_own_first_tokens(dataset: ShardedDataset) -> None:
    batch = task_of(dataset).batch(Cursor(), 0, 1)
    drawn = task_of(dataset).batches.batch(Cursor()).questions
    assert (batch.questions.ids[:, 0] == len(VOCABULARY) - 1).all()
    assert (batch.answers.ids[:, 0] == len(VOCABULARY) - 2).all()
    assert [row[row != PAD].tolist() for row in batch.questions.ids] == [ids(each.text, QUESTION) for each in drawn]
    assert all(row[row != PAD][-1] == END for row in batch.answers.ids)
    assert batch.rows.tolist() == [row for row, each in enumerate(drawn) for _ in each.answers]


def test_only_the_heaviest_answers_are_learned(dataset: ShardedDataset) -> None:
    task = task_of(dataset, batch_size=8, answers_per_question=1)
    batch, drawn = task.batch(Cursor(), 0, 1), task.batches.batch(Cursor()).questions
    assert batch.rows.tolist() == list(range(8))
    heaviest = [max(zip(each.weights, each.answers, strict=True), key=lambda pair: pair[0]) for each in drawn]
    torch.testing.assert_close(batch.weights, torch.tensor([weight for weight, _ in heaviest]))
    assert [row[row != PAD].tolist() for row in batch.answers.ids] == [ids(answer, START) for _, answer in heaviest]


def test_padding_a_question_changes_nothing(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_model(BlipVqa)
    batch = in_double(task.batch(Cursor(), 0, 1))
    padding = {"ids": PAD, "mask": 0}
    padded = {
        name: functional.pad(getattr(batch.questions, name), (0, 3), value=value) for name, value in padding.items()
    }
    longer = replace(batch, questions=replace(batch.questions, **padded))
    torch.testing.assert_close(task.logits(model, longer), task.logits(model, batch), **TIGHT)


def loss_and_gradient(folder: str) -> tuple[Tensor, Tensor, int]:
    task, model = task_of(open_dataset(folder)), tiny_model(BlipVqa)
    batch = in_double(task.batch(Cursor(), rank(), world_size()))
    loss = task.loss(model, model, batch, Cursor()).value
    loss.backward()
    gradient = average(model.text_encoder.encoder.layer[0].intermediate.dense.weight.grad)
    return average(loss.detach()), gradient, len(batch.rows)


def test_the_batch_of_two_processes_is_that_of_one(two_ranks: Ranks, dataset: ShardedDataset) -> None:
    loss, gradient, answers = loss_and_gradient(dataset.root)
    found = two_ranks.run(loss_and_gradient, dataset.root)
    for other_loss, other_gradient, _ in found:
        torch.testing.assert_close((other_loss, other_gradient), (loss, gradient), **TIGHT)
    own = [number for _, _, number in found]
    assert sum(own) == answers and own[0] != own[1]


def first_of(data: QuestionSplit, count: int) -> QuestionSplit:
    """The first questions of a split."""
    counts = np.diff(np.minimum(np.cumsum(data.asked.counts), count), prepend=0)
    return QuestionSplit(data.pictures, Nested(pa.chunked_array([data.asked.values[:count]]), counts))


def brute_force(task: Vqa, data: QuestionSplit, candidates: int) -> list[str]:
    """Each answer of the list to each question, one at a time."""
    model, chosen = tiny_model(BlipVqa), []
    with torch.no_grad():
        for question in data:
            pixels = task.views.evaluation(data.pictures, [question.image])[0].double()
            states = model.encode(pixels[None], torch.tensor([ids(question.text, QUESTION)]))
            first = model.decode(states, None, torch.tensor([[START]]))[0, 0].softmax(0)
            likely = sorted(ANSWERS, key=lambda answer: -first[ids(answer, START)[1]])[:candidates]
            losses = {answer: answer_loss(model, pixels, question.text, answer, 0.1).item() for answer in likely}
            chosen.append(min(losses, key=lambda answer: losses[answer]))
    return chosen


class InDouble(BlipVqa):
    """Takes pixels in fp32."""

    def encode(self, pixel_values: Tensor, *others: Any, **named: Any) -> Tensor:
        return super().encode(pixel_values.double(), *others, **named)


@pytest.mark.parametrize(("candidates", "counted"), [(128, 10), (10, 10), (4, 4), (1, 1)])
def test_ranking_is_that_of_all_answers_one_by_one(dataset: ShardedDataset, candidates: int, counted: int) -> None:
    task = task_of(dataset, candidates=candidates)
    data = load_questions(dataset, "val")
    some = first_of(data, 8)
    assert task.answers(tiny_model(InDouble), some) == brute_force(task, some, counted)


def test_candidates_matter(dataset: ShardedDataset) -> None:
    data = load_questions(dataset, "val")
    some = first_of(data, 8)
    assert brute_force(task_of(dataset), some, 10) != brute_force(task_of(dataset), some, 1)


def test_the_size_of_parts_changes_nothing(dataset: ShardedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = load_questions(dataset, "val"), tiny_model(InDouble)
    whole = task_of(dataset).answers(model, data)
    monkeypatch.setattr("upop_ray.tasks.vqa._QUESTIONS", 5)
    monkeypatch.setattr("upop_ray.tasks.vqa._ANSWERS", 7)
    assert task_of(dataset).answers(model, data) == whole


def test_generated_answers_are_those_of_the_decoder(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset, inference="generate"), tiny_model(BlipVqa).float()
    data = load_questions(dataset, "val")
    few = first_of(data, 3)
    for asked, answer in zip(few, task.answers(model, few), strict=True):
        pixels = task.views.evaluation(data.pictures, [asked.image])
        question = torch.tensor([ids(asked.text, QUESTION)])
        found = model.generate(question, pixels, num_beams=3, min_length=1, max_length=8)[0].tolist()
        assert answer.split() == [
            VOCABULARY[token] for token in found if token not in (PAD, 2, END, 4, START, QUESTION)
        ]


def evaluated(folder: str, inference: str) -> tuple[list[str], dict[str, float]]:
    task, model = task_of(open_dataset(folder), inference=inference), tiny_model(BlipVqa).float()
    return task.answers(model, load_questions(task.dataset, "test")), task.evaluate(model, "test")


@pytest.mark.parametrize("inference", ["rank", "generate"])
def test_evaluation_of_two_processes_is_that_of_one(two_ranks: Ranks, dataset: ShardedDataset, inference: str) -> None:
    expected = evaluated(dataset.root, inference)
    assert len(set(expected[0])) > 1 and set(expected[1]) == {"accuracy", "accuracy/yes_no", "accuracy/other"}
    assert evaluated(dataset.root, inference) == expected
    assert two_ranks.run(evaluated, dataset.root, inference) == [expected, expected]


def test_metrics_are_of_the_answers(dataset: ShardedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(dataset)
    assert task.headline == "accuracy" and TASKS["vqa"] is Vqa
    # every second question is answered with no; blue has three of ten annotators
    monkeypatch.setattr(task, "answers", lambda model, data: ["blue", "no"] * 9 + ["cat", "yes"] * 9)
    found = task.evaluate(tiny_model(BlipVqa), "validation")
    assert found == pytest.approx({"accuracy": (50 + 45) / 2, "accuracy/yes_no": 50, "accuracy/other": 45})


@pytest.mark.parametrize("field", ["question_length", "answer_length"])
@pytest.mark.parametrize("tokens", [2, 17])
def test_lengths_that_the_model_lacks_are_refused(dataset: ShardedDataset, field: str, tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"task.{field}: got {tokens}.*use 3 to 16"):
        task_of(dataset, **{field: tokens})


def test_an_answer_list_is_needed_for_ranking_alone(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, {"train": TRAINING})
    with pytest.raises(DataError, match="manifest's `answers`"):
        task_of(dataset)
    assert task_of(dataset, inference="generate").steps_per_epoch() == 2
