"""Evaluation that the ranks of a replica share, and what it needs of a model."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from upop_ray.tasks.collective import gather, rank, world_size

#: names of splits in shards
SPLITS = {"validation": "val", "test": "test"}
BATCH = 128

Batch = TypeVar("Batch")
Input = TypeVar("Input")


def row_batches(count: int, size: int = BATCH) -> list[range]:
    """Rows 0 to ``count`` in batches; the last may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next(model.parameters()).device


def over_ranks(
    batches: Sequence[Batch], prepare: Callable[[Batch], Input], compute: Callable[[Input], Tensor]
) -> Tensor:
    """Results of all batches in order: (rows, ...), the same on every rank; each computes every world_size-th batch.

    :param prepare: batch -> what is computed on, in a thread that is one batch ahead
    :param compute: input -> one row of results for each example, (b, ...); what follows b is the same for all batches
    """
    if world_size() == 1:
        return torch.cat([compute(each) for each in _ahead(prepare, batches)])
    # ranks without a batch of their own compute the last one again, so that all gather together
    turns = [
        [min(first + other, len(batches) - 1) for other in range(world_size())]
        for first in range(0, len(batches), world_size())
    ]
    inputs = _ahead(prepare, [batches[indices[rank()]] for indices in turns])
    parts: dict[int, Tensor] = {}
    for indices, each in zip(turns, inputs, strict=True):
        own = compute(each)
        counts = gather(torch.tensor([len(own)], device=own.device))
        padded = torch.zeros(int(counts.max()), *own.shape[1:], dtype=own.dtype, device=own.device)
        padded[: len(own)] = own
        for index, count, part in zip(indices, counts, gather(padded[None]), strict=True):
            parts[index] = part[: int(count)]
    return torch.cat([parts[index] for index in range(len(batches))])


def unchanged(batch: Batch) -> Batch:
    """The batch itself, where there is nothing to prepare."""
    return batch


def _ahead(prepare: Callable[[Batch], Input], batches: Sequence[Batch]) -> Iterator[Input]:
    """What is prepared of each batch, while the one before is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(prepare, batches[0])
        for batch in batches[1:]:
            ready, coming = coming.result(), thread.submit(prepare, batch)
            yield ready
        yield coming.result()
