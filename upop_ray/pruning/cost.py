"""What a unit and a model cost, from real module shapes."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from upop_ray.pruning.site import Keep, Site, linear

Budget = Literal["params", "macs", "units"]


def parameters_per_unit(model: nn.Module, site: Site) -> int:
    """Parameters that leave the model with one unit of ``site``: its rows with biases, and its columns."""
    rows = sum(slot.groups * _fan_in(linear(model, slot)) for slot in site.producers)
    columns = sum(slot.groups * linear(model, slot).out_features for slot in site.consumers)
    return rows + columns


def macs_per_unit(model: nn.Module, site: Site) -> int:
    """Multiply-accumulates of one example that leave with one unit of ``site``; biases are not counted."""
    rows = sum(slot.tokens * slot.groups * linear(model, slot).in_features for slot in site.producers)
    columns = sum(slot.tokens * slot.groups * linear(model, slot).out_features for slot in site.consumers)
    return rows + columns + site.product_macs


def unit_costs(model: nn.Module, sites: tuple[Site, ...], budget: Budget, paper_attention: int) -> dict[str, int]:
    """Cost of one unit of each site in the currency of ``budget``.

    :param paper_attention: what an attention unit weighs under ``units``, where an MLP unit weighs 1 (36 for BLIP and
        CLIP, 12 for DeiT and Segmenter)
    """
    if budget == "params":
        return {site.name: parameters_per_unit(model, site) for site in sites}
    if budget == "macs":
        return {site.name: macs_per_unit(model, site) for site in sites}
    return {site.name: paper_attention if site.kind == "attention" else 1 for site in sites}


def removable_cost(sites: tuple[Site, ...], costs: Mapping[str, int]) -> int:
    """Cost of all units together: what ``ratio`` is a share of."""
    return sum(site.units * costs[site.name] for site in sites)


def removed_cost(keep: Keep, costs: Mapping[str, int]) -> int:
    """Cost of the units that ``keep`` removes."""
    return sum(int((~mask).sum()) * costs[name] for name, mask in keep.items())


def count_parameters(model: nn.Module) -> int:
    """Parameters of a model, each counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of one forward pass on ``example``, measured with torch's FLOP counter (2 FLOP = 1 MAC)."""
    training = model.training
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(**example)
    model.train(training)
    return int(counter.get_total_flops()) // 2


def _fan_in(layer: nn.Linear) -> int:
    return layer.in_features + (0 if layer.bias is None else 1)
