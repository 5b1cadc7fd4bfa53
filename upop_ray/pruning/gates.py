"""Gates folded into the weights of the layers they multiply."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.pruning.site import Keep, Site, expand, linear


class _GatedLinearFunction(torch.autograd.Function):
    """``gate * (x W^T + b)`` without keeping a scaled copy of W until the backward pass."""

    @staticmethod
    def forward(ctx, x, weight, bias, gate):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight, bias, gate)
        return functional.linear(x, *_folded(weight, bias, gate))

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        x, weight, bias, gate = ctx.saved_tensors
        rows = grad_output.flatten(0, -2)  # (tokens, out)
        product = rows.t() @ x.flatten(0, -2)  # (out, in), the gradient of the folded weight
        scale = gate.to(weight.dtype)[:, None]
        # accumulated in the gate's precision: a score is a sum over the whole search
        grad_gate = (product.to(gate.dtype) * weight.to(gate.dtype)).sum(1)
        grad_bias = None
        if bias is not None:
            row_sums = rows.sum(0)
            grad_gate += row_sums.to(gate.dtype) * bias.to(gate.dtype)
            grad_bias = row_sums * gate.to(bias.dtype)
        grad_x = (rows @ _folded(weight, None, gate)[0]).view_as(x) if ctx.needs_input_grad[0] else None
        return grad_x, product * scale, grad_bias, grad_gate


def _folded(weight: Tensor, bias: Tensor | None, gate: Tensor) -> tuple[Tensor, Tensor | None]:
    # multiplied in the gate's precision, so that 1 - p_t / p is not rounded to bf16 first
    folded_bias = None if bias is None else (bias * gate).to(bias.dtype)
    return (weight * gate[:, None]).to(weight.dtype), folded_bias


class GatedLinear(nn.Linear):
    """A linear layer whose outputs are multiplied by a site's gate; made by :meth:`Gates.attach`.

    ``gate`` (units,) is a leaf tensor that is neither a parameter nor a buffer: optimizers and state_dict never see it.
    """

    gate: Tensor
    gate_groups: int

    def forward(self, input: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if torch.is_autocast_enabled(input.device.type):
            low = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(low), weight.to(low)
            bias = None if bias is None else bias.to(low)
        output: Tensor = _GatedLinearFunction.apply(input, weight, bias, expand(self.gate, self.gate_groups))  # type: ignore[no-untyped-call]
        return output


class Gates:
    """The gates of a model: one leaf tensor (units,) for each site, 1 at the start.

    The gradient accumulates over the whole search and is read with :meth:`scores` (ALGORITHM: the published runs never
    clear it). Gates are fp32, or fp64 where the weights are.
    """

    def __init__(self, model: nn.Module, sites: tuple[Site, ...]) -> None:
        self.sites = sites
        self.tensors: dict[str, Tensor] = {}
        for site in sites:
            weight = linear(model, site.producers[0]).weight
            dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
            self.tensors[site.name] = torch.ones(site.units, dtype=dtype, device=weight.device, requires_grad=True)

    def attach(self, model: nn.Module) -> None:
        """Put the gates in place by swapping the class of each producer; names in state_dict stay the same."""
        for site in self.sites:
            for slot in site.producers:
                layer = linear(model, slot)
                layer.__class__ = GatedLinear
                layer.gate, layer.gate_groups = self.tensors[site.name], slot.groups  # type: ignore[assignment]

    def detach(self, model: nn.Module) -> None:
        """Give every producer back as the plain linear layer that it was."""
        for site in self.sites:
            for slot in site.producers:
                layer = linear(model, slot)
                if isinstance(layer, GatedLinear):
                    del layer.gate, layer.gate_groups
                    layer.__class__ = nn.Linear  # type: ignore[assignment]

    def scores(self) -> dict[str, Tensor]:
        """The accumulated gradient of each gate (units,), zero where no backward pass has reached it."""
        return {
            name: torch.zeros_like(gate) if gate.grad is None else gate.grad.clone()
            for name, gate in self.tensors.items()
        }

    @torch.no_grad()
    def shrink(self, keep: Keep, value: float) -> None:
        """Set the gates of kept units to 1 and of the others to ``value`` (1 - p_t / p; UPop section 3.2)."""
        for name, gate in self.tensors.items():
            # rounded through fp32, as published
            gate.copy_(torch.where(keep[name].to(gate.device), 1.0, torch.tensor(value, dtype=torch.float32).to(gate)))

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
        """Restore gates and accumulated gradients from a checkpoint."""
        for name, gate in self.tensors.items():
            gate.copy_(values[name])
            gate.grad = scores[name].to(gate).clone()

    def penalty(self, weights: Mapping[str, float]) -> Tensor:
        """L1 penalty ``sum_kind weight_kind * sum |gate|`` as published."""
        total = sum(weights[site.kind] * self.tensors[site.name].abs().sum() for site in self.sites)
        return torch.as_tensor(total)
