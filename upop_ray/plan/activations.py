"""What a forward pass keeps for the backward pass, counted without computing anything."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def saved_bytes(compute: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps of a computation, each storage counted once.

    :param compute: runs forward passes; its result is kept until the count is done
    :param held: tensors that are in memory anyway, such as weights
    """
    known = {_storage(tensor) for tensor in held}
    # the tensors themselves are kept, so that no storage's address is used twice
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(_storage(tensor), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    total = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in known)
    del result
    return total


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention keep what fused kernels keep: inputs, output, and one number for each query and head.

    The meta device has none of these kernels and would keep all attention probabilities.
    """
    with _Fused():
        yield


class _Fused(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            return _FusedAttention.apply(query, key, value)  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value):  # type: ignore[no-untyped-def]
        batch, heads, queries, _ = query.shape
        # the layout of the kernels' output, in which heads are joined without a copy
        output = query.new_empty(batch, queries, heads, value.shape[-1]).transpose(1, 2)
        totals = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, output, totals)
        return output


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
