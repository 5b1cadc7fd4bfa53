"""Gathering over the ranks of a replica; without a process group each function is the identity."""

import torch
from torch import Tensor, distributed


def rank() -> int:
    """Rank of this process in its replica, 0 without one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Processes of the replica, 1 without one."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(values: Tensor) -> Tensor:
    """Concatenate ``values`` (n, ...) of all ranks in rank order: (world * n, ...); no gradient."""
    if world_size() == 1:
        return values.detach()
    parts = [torch.empty_like(values) for _ in range(world_size())]
    distributed.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def gather_with_gradient(values: Tensor) -> Tensor:
    """As :func:`gather`, with a gradient: each rank receives the sum over ranks of the gradients of its rows.

    When every rank averages its own rows of a loss over the global batch and gradients of weights are averaged over
    ranks, they are those of the loss of the global batch.
    """
    return values if world_size() == 1 else _Gather.apply(values)  # type: ignore[no-any-return, no-untyped-call]


def average(values: Tensor) -> Tensor:
    """Mean of ``values`` over ranks, the same bits on each of them."""
    if world_size() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / world_size()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):  # type: ignore[no-untyped-def]
        ctx.rows = len(values)
        return gather(values)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        total = grad_output.contiguous()
        distributed.all_reduce(total)
        return total.narrow(0, rank() * ctx.rows, ctx.rows)
