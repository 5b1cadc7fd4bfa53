"""NLVR2: loss and evaluation against loops over rows, and two processes against one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.datasets import drawing, write_dataset
from tests.ranks import Ranks
from tests.tasks.texts import PAD, QUESTION, SIDE, VOCABULARY, experiment, ids, processor, tiny_model
from upop_ray.data.order import Cursor
from upop_ray.data.pairs import PairBatch, load_pairs
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.errors import ConfigError
from upop_ray.models.blip.twins import BlipNlvr
from upop_ray.tasks import TASKS
from upop_ray.tasks.collective import rank, world_size
from upop_ray.tasks.nlvr import Nlvr, scores

STATEMENTS = ("a red cat", "it is a big blue bird on grass", "no dog")
#: more than one batch of the evaluation, and an incomplete last one
SIZES = {"train": 12, "val": 150, "test": 5}
LENGTH = 12
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    return write_dataset(
        tmp_path_factory.mktemp("pairs"), {split: [row(number) for number in range(SIZES[split])] for split in SIZES}
    )


def row(number: int) -> dict[str, Any]:
    images = {"left": drawing(number % 5, SIDE, SIDE), "right": drawing(5 + number % 7, SIDE, SIDE)}
    return images | {"statement": STATEMENTS[number % 3], "label": number % 4 == 0}


def tiny_nlvr() -> Any:
    return tiny_model(BlipNlvr).float()


def task_of(dataset: ShardedDataset, **settings: Any) -> Nlvr:
    return Nlvr(experiment({"name": "nlvr", "text_length": LENGTH} | settings), dataset, processor(), tiny_nlvr())


def statement(row_ids: Tensor) -> str:
    return " ".join(VOCABULARY[token] for token in row_ids[1:].tolist() if token > VOCABULARY.index("[MASK]"))


def row_by_row(model: BlipNlvr, batch: PairBatch) -> Tensor:
    """Logits of each row by itself, its statement not padded."""
    firsts, seconds = batch.pixel_values.chunk(2)
    rows = []
    for first, second, tokens in zip(firsts, seconds, batch.input_ids, strict=True):
        own = torch.tensor([ids(statement(tokens), QUESTION)])
        rows.append(model(pixel_values=torch.stack([first, second]), input_ids=own).logits[0])
    return torch.stack(rows)


def test_the_task_is_registered() -> None:
    assert TASKS["nlvr"] is Nlvr


def test_statements_begin_with_the_token_for_images_and_are_padded(dataset: ShardedDataset) -> None:
    batch = task_of(dataset).batch(Cursor(), 0, 1)
    assert batch.input_ids.shape == batch.attention_mask.shape == (4, LENGTH)
    for tokens, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        expected = ids(statement(tokens), QUESTION)
        assert tokens.tolist() == expected + [PAD] * (LENGTH - len(expected))
        assert mask.tolist() == [1] * len(expected) + [0] * (LENGTH - len(expected))
        assert statement(tokens) in STATEMENTS


def test_loss_is_the_cross_entropy_of_each_row_by_itself(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_nlvr()
    batch = task.batch(Cursor(1, 2), 0, 1)
    loss = task.loss(model, model, batch, Cursor(1, 2))
    logits = row_by_row(model, batch)
    expected = -torch.stack([row.log_softmax(0)[label] for row, label in zip(logits, batch.labels, strict=True)]).mean()
    torch.testing.assert_close(loss.value, expected, **CLOSE)
    torch.testing.assert_close(loss.logits, logits, **CLOSE)
    assert torch.equal(task.logits(model, batch), loss.logits)


def test_the_mean_loss_of_the_ranks_is_that_of_the_global_batch(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_nlvr()
    whole, *parts = (
        task.loss(model, model, task.batch(Cursor(), *place), Cursor()).value for place in ((0, 1), (0, 2), (1, 2))
    )
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole, **CLOSE)


@torch.no_grad()
def test_evaluation_is_that_of_each_row_in_order(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_nlvr()
    split = load_pairs(dataset, "val")
    logits = row_by_row(model, task.batches.evaluation(split, range(len(split))))
    right = (logits.argmax(1) == torch.arange(len(split)).remainder(4).eq(0).long()).tolist()
    assert 0 < sum(right) < len(right)
    # dropout would blur it
    found = task.evaluate(model.train(), "validation")
    assert found["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    assert found == scores(right, split.statements.to_pylist()) == task.evaluate(model, "validation")


def on_a_rank(root: str) -> tuple[float, dict[str, float]]:
    task, model = task_of(open_dataset(root)), tiny_nlvr()
    loss = task.loss(model, model, task.batch(Cursor(), rank(), world_size()), Cursor()).value
    return loss.item(), task.evaluate(model, "validation")


def test_two_ranks_are_as_one(dataset: ShardedDataset, two_ranks: Ranks) -> None:
    loss, metrics = on_a_rank(dataset.root)
    (first, first_metrics), (second, second_metrics) = two_ranks.run(on_a_rank, dataset.root)
    assert (first + second) / 2 == pytest.approx(loss, rel=1e-5)
    assert first_metrics == second_metrics == metrics


def test_accuracy_and_consistency_of_a_hand_computed_case() -> None:
    statements = ("a", "b", "a", "c", "b", "a")
    # a has a wrong row, b and c have none
    assert scores([True, True, False, True, True, True], statements) == {
        "accuracy": pytest.approx(500 / 6),
        "consistency": pytest.approx(200 / 3),
    }
    assert scores([False] * 6, statements) == {"accuracy": 0.0, "consistency": 0.0}
    assert scores([True] * 6, statements) == {"accuracy": 100.0, "consistency": 100.0}


def test_texts_longer_than_the_model_reads_are_refused(dataset: ShardedDataset) -> None:
    with pytest.raises(ConfigError, match=r"task\.text_length: got 36, the model has 16 positions; use 3 to 16"):
        task_of(dataset, text_length=36)
