"""Reasoning about two images (NLVR2): whether a statement is true of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.config import Experiment, Reasoning
from upop_ray.data.batches import training_order
from upop_ray.data.image_text import FixedLength
from upop_ray.data.images import preprocessing_of
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.pairs import PairBatch, PairBatches, load_pairs
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.views import BLIP_VIEWS
from upop_ray.tasks.evaluation import SPLITS, device_of, over_ranks, row_batches
from upop_ray.tasks.language import cleaned, require_room
from upop_ray.tasks.spec import Loss, StatelessTask


class Nlvr(StatelessTask):
    """NLVR2 for models that map two images a row and a statement to ``logits`` of false and true (BLIP-NLVR2)."""

    headline = "accuracy"

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training split.

        :raises ConfigError: texts are longer than the model reads, or a batch exceeds the data
        :raises DataError: a shard is missing or corrupt
        """
        task = experiment.task
        assert isinstance(task, Reasoning)
        config: Any = model.config
        self.dataset = dataset
        require_room("task.text_length", task.text_length, config.text_config.max_position_embeddings)
        # the last entry of the vocabulary is [ENC], with which texts begin that are read together with images
        start = config.text_config.vocab_size - 1
        tokenize = FixedLength(processor.tokenizer, task.text_length, start, cleaned)
        views = BLIP_VIEWS[task.augmentation](preprocessing_of(processor, config.vision_config.image_size))
        split = read_once(load_pairs, dataset, "train")
        order = training_order(dataset, split, experiment.batch_size, experiment.seed)
        self.batches = PairBatches(split, order, views, tokenize)

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> PairBatch:
        return self.batches.batch(cursor, rank, world_size)

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: PairBatch, cursor: Cursor) -> Loss:
        logits = judged(forward, batch, device_of(model))
        return Loss(functional.cross_entropy(logits, batch.labels.to(logits.device)), logits)

    def logits(self, teacher: nn.Module, batch: PairBatch) -> Tensor:
        return judged(teacher, batch, device_of(teacher))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        examples = read_once(load_pairs, self.dataset, SPLITS[split])
        model.eval()
        rows, batches = row_batches(len(examples)), self.batches
        right = over_ranks(rows, lambda part: batches.evaluation(examples, part), lambda batch: _right(model, batch))
        return scores(right.bool().tolist(), examples.statements.to_pylist())


def judged(forward: Callable[..., Any], batch: PairBatch, device: torch.device) -> Tensor:
    """Logits of false and true in fp32, (b, 2)."""
    output = forward(
        pixel_values=batch.pixel_values.to(device),
        input_ids=batch.input_ids.to(device),
        attention_mask=batch.attention_mask.to(device),
    )
    logits: Tensor = output.logits
    return logits.float()


def _right(model: nn.Module, batch: PairBatch) -> Tensor:
    logits = judged(model, batch, device_of(model))
    return (logits.argmax(1) == batch.labels.to(logits.device)).long()


def scores(right: Sequence[bool], statements: Sequence[str]) -> dict[str, float]:
    """Accuracy over rows, and consistency: the share of distinct statements with no wrong row (Suhr et al., 2019).

    Both in percent.

    :param right: whether each row was judged rightly
    """
    wrong = {statement for statement, is_right in zip(statements, right, strict=True) if not is_right}
    distinct = len(set(statements))
    return {"accuracy": 100 * sum(right) / len(right), "consistency": 100 * (distinct - len(wrong)) / distinct}
