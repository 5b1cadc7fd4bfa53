"""From scores to masks: one ranking over all sites, towers and kinds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from upop_ray.errors import BudgetError, UpopError
from upop_ray.pruning.site import Site

ScoreRule = Literal["signed", "absolute"]


@dataclass(frozen=True)
class Ranking:
    """What is ranked and in which currency.

    :param costs: cost of one unit of each site
    :param published: the paper's cut (``budget: units``) instead of the exact one
    :param score: ``signed`` removes the largest gradients first (published), ``absolute`` the smallest magnitudes
    :param floor: units that every site keeps
    :param prices: added to the standardised scores, by ``kind`` and by ``tower``; positive removes more there
    """

    sites: tuple[Site, ...]
    costs: Mapping[str, int]
    published: bool = False
    score: ScoreRule = "signed"
    floor: int = 1
    prices: Mapping[str, float] = field(default_factory=dict)


def keep_masks(scores: Mapping[str, Tensor], ranking: Ranking, ratio: float) -> dict[str, Tensor]:
    """Masks that remove the share ``ratio`` of the total cost, highest standardised score first.

    :param scores: (units,) for each site, larger is removed first; under ``absolute`` the smallest magnitude is
    :returns: boolean (units,) for each site, True where the unit stays
    :raises BudgetError: the floors leave too little to remove
    :raises UpopError: a score is not finite, so that no order exists
    """
    if ranking.score == "absolute":
        scores = {name: -score.abs() for name, score in scores.items()}
    return cut(priced(standardised(scores, ranking.sites), ranking), ranking, ratio)


def require_feasible(ranking: Ranking, ratio: float) -> None:
    """Make sure that the floors leave enough to remove.

    :raises BudgetError: they do not
    """
    total = sum(site.units * ranking.costs[site.name] for site in ranking.sites)
    removable = sum(max(0, site.units - ranking.floor) * ranking.costs[site.name] for site in ranking.sites)
    if ratio * total > removable + min(ranking.costs.values()) / 2:
        raise BudgetError(
            f"search.ratio: {ratio} cannot be removed while every site keeps search.floor={ranking.floor} units; "
            f"at most {removable / total:.4f} can"
        )


def cut(ordered: Mapping[str, Tensor], ranking: Ranking, ratio: float) -> dict[str, Tensor]:
    """Masks from removal scores that are comparable already (larger goes first), by the rule of ``ranking``."""
    rule = _cut_published if ranking.published else _cut_exact
    return rule({site.name: ordered[site.name].cpu() for site in ranking.sites}, ranking, ratio)


def standardised(scores: Mapping[str, Tensor], sites: tuple[Site, ...]) -> dict[str, Tensor]:
    """Scores minus mean over unbiased deviation, per kind: raw attention and MLP gradients live on different scales.

    :raises UpopError: a score is not finite, so that no order exists
    """
    broken = sorted(name for name, score in scores.items() if not torch.isfinite(score).all())
    if broken:
        raise UpopError(f"{broken[0]}: scores are not finite; lower search.learning_rate or use precision: fp32")
    result: dict[str, Tensor] = {}
    for kind in ("attention", "mlp"):
        names = [site.name for site in sites if site.kind == kind]
        if not names:
            continue
        pooled = torch.cat([scores[name] for name in names])
        deviation = pooled.std()
        # where every score is equal nothing tells the units apart, so all are level
        z = (pooled - pooled.mean()) / deviation if deviation > 0 else torch.zeros_like(pooled)
        result.update(zip(names, torch.split(z, [len(scores[name]) for name in names]), strict=True))
    return result


def priced(z: Mapping[str, Tensor], ranking: Ranking) -> dict[str, Tensor]:
    """Add the price of each site's kind and tower to its standardised scores; without prices nothing changes."""
    return {
        site.name: z[site.name] + ranking.prices.get(site.kind, 0.0) + ranking.prices.get(site.tower, 0.0)
        for site in ranking.sites
    }


def _cut_published(z: Mapping[str, Tensor], ranking: Ranking, ratio: float) -> dict[str, Tensor]:
    """The paper's cut: a threshold where the cumulated cost is nearest to the target; its own element stays."""
    pooled = torch.cat([z[site.name] for site in ranking.sites])
    weights = torch.cat([torch.full((site.units,), ranking.costs[site.name]) for site in ranking.sites])
    descending, order = torch.sort(pooled, descending=True)
    cumulated = torch.cumsum(weights[order], 0)
    threshold = descending[torch.argmin((cumulated - ratio * weights.sum()).abs())]
    result = {}
    for site in ranking.sites:
        scores = z[site.name]
        lowest = torch.kthvalue(scores, min(ranking.floor, site.units)).values
        result[site.name] = (scores <= threshold) | (scores <= lowest)
    return result


def _cut_exact(z: Mapping[str, Tensor], ranking: Ranking, ratio: float) -> dict[str, Tensor]:
    """Remove units in order as long as they fit into the target, never below a site's floor.

    Where the next unit is too large for what is left, smaller ones further down fill it, so that the removed cost ends
    within half of the smallest unit of the target.
    """
    sites = ranking.sites
    pooled = torch.cat([z[site.name] for site in sites])
    costs = torch.cat([torch.full((site.units,), ranking.costs[site.name]) for site in sites])
    protected = torch.cat([_protected(z[site.name], ranking.floor) for site in sites])
    order = torch.sort(pooled, descending=True, stable=True).indices
    order = order[~protected[order]]
    require_feasible(ranking, ratio)
    keep = torch.ones(len(pooled), dtype=torch.bool)
    keep[order[_fitting(costs[order], ratio * int(costs.sum()))]] = False
    return dict(zip((site.name for site in sites), torch.split(keep, [site.units for site in sites]), strict=True))


def _fitting(costs: Tensor, target: float) -> Tensor:
    """Mask over units in order: those that are taken to come as near to ``target`` as a single pass can."""
    cumulated = torch.cumsum(costs, 0)
    taken = cumulated <= target
    left = target - int(costs[taken].sum())
    while len(fits := ((costs <= left) & ~taken).nonzero()):
        taken[fits[0]] = True
        left -= int(costs[fits[0]])
    rest = (~taken).nonzero().flatten()
    if len(rest):
        smallest = rest[torch.argmin(costs[rest])]
        # over the target by less than it is under it without
        taken[smallest] = bool(int(costs[smallest]) < 2 * left)
    return taken


def _protected(scores: Tensor, floor: int) -> Tensor:
    protected = torch.zeros(len(scores), dtype=torch.bool)
    protected[torch.sort(scores, stable=True).indices[:floor]] = True
    return protected
