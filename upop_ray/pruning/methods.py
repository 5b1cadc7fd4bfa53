"""The methods of a sweep: UPop and its baselines, each a few facts and at most one scoring function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upop_ray.pruning.ranking import Ranking, cut, keep_masks, priced, standardised
from upop_ray.pruning.site import Keep, Site, Slot, linear


@dataclass(frozen=True)
class Method:
    """How a method finds its masks.

    :param searches: trains with gates before the cut; the others cut the dense weights and get the epochs as retraining
    :param progressive: shrinks the gates of removed units during the search (UPop section 3.2)
    :param learns_gates: trains the gates with an L1 penalty and ranks their magnitude (Mask-based Pruning)
    :param order: for methods without a search: removal scores of the dense model, larger goes first
    """

    searches: bool = False
    progressive: bool = False
    learns_gates: bool = False
    order: "Callable[[nn.Module, Ranking, int], dict[str, Tensor]] | None" = None


def magnitude_global(model: nn.Module, ranking: Ranking, seed: int) -> dict[str, Tensor]:
    """Smallest weights first over the whole model: root mean square of a unit's weights, standardised per kind."""
    scores = {site.name: -unit_magnitudes(model, site) for site in ranking.sites}
    return priced(standardised(scores, ranking.sites), ranking)


def magnitude_uniform(model: nn.Module, ranking: Ranking, seed: int) -> dict[str, Tensor]:
    """Smallest weights first within each site, the same share of every site."""
    return {site.name: _removal_rank(unit_magnitudes(model, site)) for site in ranking.sites}


def random_order(model: nn.Module, ranking: Ranking, seed: int) -> dict[str, Tensor]:
    """Units in an order drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    return {site.name: torch.rand(site.units, generator=generator) for site in ranking.sites}


METHODS: Mapping[str, Method] = {
    "upop": Method(searches=True, progressive=True),
    "unified": Method(searches=True),
    "mask": Method(searches=True, learns_gates=True),
    "magnitude": Method(order=magnitude_global),
    "magnitude_uniform": Method(order=magnitude_uniform),
    "random": Method(order=random_order),
}


def searched_masks(
    gates: Mapping[str, Tensor], scores: Mapping[str, Tensor], method: Method, ranking: Ranking, ratio: float
) -> dict[str, Tensor]:
    """Masks of a searching method at share ``ratio``: from accumulated gradients, or from learned gates.

    :param gates: value of each gate (units,)
    :param scores: accumulated gradient of each gate (units,), averaged over ranks
    """
    if not method.learns_gates:
        return keep_masks(scores, ranking, ratio)
    learned = {name: -gate.detach().abs() for name, gate in gates.items()}
    return cut(priced(standardised(learned, ranking.sites), ranking), ranking, ratio)


def unsearched_masks(model: nn.Module, method: Method, ranking: Ranking, ratio: float, seed: int) -> Keep:
    """Masks of a method that looks at the dense weights only."""
    if method.order is None:
        raise TypeError("this method ranks after a search, not before")
    return cut(method.order(model, ranking, seed), ranking, ratio)


def unit_magnitudes(model: nn.Module, site: Site) -> Tensor:
    """Root mean square of all weights and biases that leave with each unit: (units,)."""
    squares, count = torch.zeros(site.units), 0
    for slot in site.producers:
        layer = linear(model, slot)
        squares += _per_unit(layer.weight, slot, site.units)
        count += slot.groups * layer.in_features
        if layer.bias is not None:
            squares += _per_unit(layer.bias[:, None], slot, site.units)
            count += slot.groups
    for slot in site.consumers:
        layer = linear(model, slot)
        squares += _per_unit(layer.weight.t(), slot, site.units)
        count += slot.groups * layer.out_features
    return (squares / count).sqrt()


def _per_unit(rows: Tensor, slot: Slot, units: int) -> Tensor:
    return rows.detach().float().cpu().square().sum(1).view(slot.groups, units).sum(0)


def _removal_rank(magnitudes: Tensor) -> Tensor:
    """1 for the smallest unit of a site down to 1 / units for the largest, so that sites of any width compare."""
    rank = torch.empty(len(magnitudes))
    rank[torch.sort(magnitudes, stable=True).indices] = torch.arange(len(magnitudes), 0, -1).float()
    return rank / len(magnitudes)
