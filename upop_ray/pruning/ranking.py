"""From scores to masks: one ranking over all sites, towers and kinds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from upop_ray.errors import BudgetError, UpopError
from upop_ray.pruning.blocks import Blocks, removable_blocks
from upop_ray.pruning.floors import Group, Limits, limits
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
    :param floors: shares or counts that towers, kinds and sites keep, see :func:`upop_ray.pruning.floors.limits`
    :param align: kept widths are multiples of it, or dense; the published cut knows 1 alone
    """

    sites: tuple[Site, ...]
    costs: Mapping[str, int]
    published: bool = False
    score: ScoreRule = "signed"
    floor: int = 1
    prices: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    align: int = 1

    @cached_property
    def limits(self) -> Limits:
        """The least that stays of sites and groups.

        :raises ConfigError: a name in ``floors`` is nothing of the model's, or a count is more than there is
        """
        return limits(self.sites, self.floor, self.floors, self.align)

    @cached_property
    def total(self) -> int:
        """Cost of all units: what a ratio is a share of."""
        return sum(site.units * self.costs[site.name] for site in self.sites)


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
    """Make sure that the floors leave enough to remove, whatever the scores will be.

    :raises BudgetError: they do not
    :raises ConfigError: a name in ``floors`` is nothing of the model's, or a count is more than there is
    """
    removable = _removable(ranking)
    if ratio * ranking.total > removable + min(ranking.costs.values()) / 2:
        conditions = [f"every site keeps search.floor={ranking.floor} units"]
        conditions += [f"search.floors.{name}={value:g}" for name, value in ranking.floors.items()]
        conditions += [f"widths are multiples of search.align={ranking.align}"] if ranking.align > 1 else []
        raise BudgetError(
            f"search.ratio: {ratio} cannot be removed while {' and '.join(conditions)}; "
            f"at most {removable / ranking.total:.4f} can"
        )


def allowed_miss(ranking: Ranking) -> float:
    """Share of the total cost by which whole blocks may miss a ratio: half of the most expensive block.

    The cut ends within half of the cheapest block that it could still take.
    """
    return ranking.align * max(ranking.costs.values()) / 2 / ranking.total


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
    blocks, free = removable_blocks(ranking.sites, z, ranking.limits, 1)
    stays = _without(ranking.sites, blocks, free)
    result = {}
    for site in ranking.sites:
        scores = z[site.name]
        lowest = torch.kthvalue(scores, ranking.limits.sites[site.name]).values
        result[site.name] = (scores <= threshold) | (scores <= lowest) | stays[site.name]
    return result


def _cut_exact(z: Mapping[str, Tensor], ranking: Ranking, ratio: float) -> dict[str, Tensor]:
    """Remove blocks in order as long as they fit into the target, never below a floor; a block is ``align`` units.

    Where the next block is too large for what is left, smaller ones further down fill it, so that the removed cost ends
    within half of the smallest block of the target.
    """
    require_feasible(ranking, ratio)
    blocks, free = removable_blocks(ranking.sites, z, ranking.limits, ranking.align)
    costs = blocks.size * torch.tensor([ranking.costs[site.name] for site in ranking.sites])[blocks.site]
    order = blocks.order()
    order = order[free[order]]
    removed = torch.zeros(len(costs), dtype=torch.bool)
    removed[order[_fitting(costs[order], ratio * ranking.total)]] = True
    return _without(ranking.sites, blocks, removed)


def _without(sites: tuple[Site, ...], blocks: Blocks, removed: Tensor) -> dict[str, Tensor]:
    """Masks of what stays when these blocks (blocks,) leave."""
    keep = torch.ones(sum(site.units for site in sites), dtype=torch.bool)
    keep[blocks.units[removed[blocks.block]]] = False
    return dict(zip((site.name for site in sites), torch.split(keep, [site.units for site in sites]), strict=True))


def _fitting(costs: Tensor, target: float) -> Tensor:
    """Mask over costs in order: those that are taken to come as near to ``target`` as a single pass can."""
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


def _removable(ranking: Ranking) -> int:
    """Cost that can leave under the floors whatever the scores are."""
    free = {site.name: site.units - ranking.limits.sites[site.name] for site in ranking.sites}
    removable = sum(units * ranking.costs[name] for name, units in free.items())
    for group in ranking.limits.groups:
        removable -= _costliest(group, free, ranking)
    return removable


def _costliest(group: Group, free: Mapping[str, int], ranking: Ranking) -> int:
    """Cost of what a group keeps beyond the floors of its sites, should the scores keep its most expensive units."""
    lacking = group.units - sum(ranking.limits.sites[site.name] for site in group.sites)
    # the last block may keep more than is lacking; where all blocks are full it is known by how much
    lacking += ranking.align - 1
    if all(free[site.name] % ranking.align == 0 for site in group.sites):
        lacking -= lacking % ranking.align
    cost = 0
    for site in sorted(group.sites, key=lambda site: -ranking.costs[site.name]):
        stays = min(lacking, free[site.name])
        cost, lacking = cost + stays * ranking.costs[site.name], lacking - stays
    return cost
