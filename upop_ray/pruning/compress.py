"""The exact slice: what a mask multiplies by zero is cut out, and nothing else changes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from upop_ray.pruning.site import Keep, Site, Slot, expand, linear


def sliced_state(state: Mapping[str, Tensor], sites: tuple[Site, ...], keep: Keep) -> dict[str, Tensor]:
    """State dict of the sliced model from that of the searched one.

    Rows (with their biases) of producers and columns of consumers are selected; everything else is taken as it is.
    """
    result = dict(state)
    for site in sites:
        for slot in site.producers:
            index = expand(keep[site.name].cpu(), slot.groups).nonzero().flatten()
            for name in (f"{slot.module}.weight", f"{slot.module}.bias"):
                if name in result:
                    result[name] = result[name].index_select(0, index.to(result[name].device)).contiguous()
        for slot in site.consumers:
            index = expand(keep[site.name].cpu(), slot.groups).nonzero().flatten()
            name = f"{slot.module}.weight"
            result[name] = result[name].index_select(1, index.to(result[name].device)).contiguous()
    return result


def folded_state(
    state: Mapping[str, Tensor], sites: tuple[Site, ...], gates: Mapping[str, Tensor], keep: Keep
) -> dict[str, Tensor]:
    """State dict with the gates of kept units multiplied into their rows; where those are 1 nothing changes.

    Removed units keep their weights: the mask takes them away.
    """
    result = dict(state)
    for site in sites:
        gate = torch.where(keep[site.name].cpu(), gates[site.name].detach().cpu(), 1.0)
        for slot in site.producers:
            rows = expand(gate, slot.groups)
            weight, bias = f"{slot.module}.weight", f"{slot.module}.bias"
            result[weight] = (result[weight] * rows[:, None]).to(result[weight].dtype)
            if bias in result:
                result[bias] = (result[bias] * rows).to(result[bias].dtype)
    return result


def resize(model: nn.Module, sites: tuple[Site, ...], kept: Mapping[str, int]) -> None:
    """Give the linear layers of ``model`` the widths of a sliced model, with new weights; in place.

    :param kept: units that each site has afterwards
    """
    for site in sites:
        for slot in site.producers:
            _replace(model, slot, out_features=slot.groups * kept[site.name])
        for slot in site.consumers:
            _replace(model, slot, in_features=slot.groups * kept[site.name])


def _replace(model: nn.Module, slot: Slot, in_features: int | None = None, out_features: int | None = None) -> None:
    old = linear(model, slot)
    new = nn.Linear(
        in_features or old.in_features,
        out_features or old.out_features,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    model.set_submodule(slot.module, new)


@torch.no_grad()
def largest_difference(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> float:
    """Largest absolute difference over pairs of outputs: the proof that sliced equals masked.

    It is NaN where any output is.
    """
    # torch's maximum keeps NaN, Python's drops one that is not the first
    largest = [(a.double() - b.double()).abs().max().cpu() for a, b in zip(first, second, strict=True)]
    return torch.stack(largest).max().item()
