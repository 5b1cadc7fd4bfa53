"""Evaluation that the ranks of a replica share, and what it needs of a model."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from upop_ray.tasks.collective import gather, rank, world_size

#: names of splits in shards
SPLITS = {"validation": "val", "test": "test"}
BATCH = 128

Batch = TypeVar("Batch")


def row_batches(count: int, size: int = BATCH) -> list[range]:
    """Rows 0 to ``count`` in batches; the last may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next(model.parameters()).device


def over_ranks(batches: Sequence[Batch], compute: Callable[[Batch], Tensor]) -> Tensor:
    """Results of all batches in order: (rows, ...), the same on every rank; each computes every world_size-th batch.

    :param compute: batch -> one row of results for each example, (b, ...); what follows b is the same for all batches
    """
    if world_size() == 1:
        return torch.cat([compute(batch) for batch in batches])
    parts: dict[int, Tensor] = {}
    for turn in range(-(-len(batches) // world_size())):
        # ranks without a batch of their own compute the last one again, so that all gather together
        indices = [min(turn * world_size() + other, len(batches) - 1) for other in range(world_size())]
        own = compute(batches[indices[rank()]])
        counts = gather(torch.tensor([len(own)], device=own.device))
        padded = torch.zeros(int(counts.max()), *own.shape[1:], dtype=own.dtype, device=own.device)
        padded[: len(own)] = own
        for index, count, part in zip(indices, counts, gather(padded[None]), strict=True):
            parts[index] = part[: int(count)]
    return torch.cat([parts[index] for index in range(len(batches))])
