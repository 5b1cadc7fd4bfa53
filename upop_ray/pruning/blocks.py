"""What can leave, in blocks: the units of a site that leave together so that its width stays a multiple."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from upop_ray.pruning.floors import Group, Limits
from upop_ray.pruning.site import Site


@dataclass(frozen=True)
class Blocks:
    """Blocks of all sites, site after site, and within a site in the order in which they leave.

    :param site: number of the site of each block (blocks,)
    :param size: units of each block (blocks,)
    :param score: their mean removal score (blocks,)
    :param units: place of each removable unit among all units of all sites (units,)
    :param block: block of each of those (units,)
    """

    site: Tensor
    size: Tensor
    score: Tensor
    units: Tensor
    block: Tensor

    def order(self) -> Tensor:
        """Blocks from the first to leave to the last; those of a site stay in their order."""
        return torch.sort(self.score, descending=True, stable=True).indices


def removable_blocks(
    sites: tuple[Site, ...], scores: Mapping[str, Tensor], limits: Limits, align: int
) -> tuple[Blocks, Tensor]:
    """Blocks above the floors of sites, and which of them (blocks,) the floors of groups let go.

    The first block of a site whose dense width is no multiple takes it down to one; the others have ``align`` units.

    :param scores: (units,) for each site, larger goes first
    """
    blocks = _joined([_of_site(site, scores[site.name], limits.sites[site.name], align) for site in sites], sites)
    free = torch.ones(len(blocks.size), dtype=torch.bool)
    for group in limits.groups:
        free[_guarded(blocks, group, limits, sites)] = False
    return blocks, free


def _of_site(site: Site, scores: Tensor, least: int, align: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Size and score of the blocks of one site, and its removable units with their blocks."""
    protected = torch.zeros(site.units, dtype=torch.bool)
    protected[torch.sort(scores, stable=True).indices[:least]] = True
    order = torch.sort(scores, descending=True, stable=True).indices
    units = order[~protected[order]]
    # a first block that is not full ends where the first multiple is
    block = (torch.arange(len(units)) + -len(units) % align) // align
    size = torch.bincount(block)
    total = torch.zeros(len(size), dtype=torch.double).index_add_(0, block, scores[units].double())
    # rounding of means must not bring a later block before an earlier one
    mean = torch.cummin(total / size, 0).values if len(size) else total
    return size, mean, units, block


def _joined(parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], sites: tuple[Site, ...]) -> Blocks:
    first_unit = first_block = 0
    units, blocks = [], []
    for site, (size, _, own, block) in zip(sites, parts, strict=True):
        units.append(own + first_unit)
        blocks.append(block + first_block)
        first_unit, first_block = first_unit + site.units, first_block + len(size)
    number = torch.cat([torch.full((len(part[0]),), index) for index, part in enumerate(parts)])
    size, score = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return Blocks(number, size, score, torch.cat(units), torch.cat(blocks))


def _guarded(blocks: Blocks, group: Group, limits: Limits, sites: tuple[Site, ...]) -> Tensor:
    """Numbers of the blocks that stay for the floor of a group: the last ones in its order."""
    names = {site.name for site in group.sites}
    member = torch.tensor([site.name in names for site in sites])
    last_first = blocks.order().flip(0)
    own = last_first[member[blocks.site[last_first]]]
    lacking = group.units - sum(limits.sites[name] for name in names)
    before = torch.cumsum(blocks.size[own], 0) - blocks.size[own]
    return own[before < lacking]
