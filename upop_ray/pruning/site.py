"""What can be removed from a model, described as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Kind = Literal["attention", "mlp"]
Tower = Literal["vision", "language", "cross"]

#: site name -> boolean tensor (units,), True where the unit stays
Keep: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Slot:
    """One linear layer that carries the units of a site, as rows (producer) or as columns (consumer).

    Row or column ``group * units + unit`` belongs to ``unit``; a multi-head projection has one group a head.

    :param module: path of the linear layer inside the model
    :param groups: how often the site's units repeat along the layer's dimension
    :param tokens: tokens of one example that pass through the layer
    """

    module: str
    groups: int
    tokens: int


@dataclass(frozen=True)
class Site:
    """One removable dimension of a model, for example the hidden units of one MLP.

    >>> Site("vision.0.mlp", "mlp", "vision", 512, (Slot("fc1", 1, 17),), (Slot("fc2", 1, 17),)).units
    512

    :param units: how many units there are
    :param producers: layers whose output rows are gated and removed
    :param consumers: layers whose input columns are removed with them
    :param product_macs: multiply-accumulates a unit costs outside linear layers for one example
        (attention: ``2 * heads * queries * keys``)
    """

    name: str
    kind: Kind
    tower: Tower
    units: int
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]
    product_macs: int = 0


def linear(model: nn.Module, slot: Slot) -> nn.Linear:
    """The layer of a slot.

    :raises TypeError: the site map names something that is no linear layer
    """
    module = model.get_submodule(slot.module)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{slot.module}: a site's slot must be a linear layer, got {type(module).__name__}")
    return module


def expand(per_unit: Tensor, groups: int) -> Tensor:
    """Repeat a per-unit tensor (units,) along the rows or columns of a slot, giving (groups * units,)."""
    return per_unit.repeat(groups)


def kept_counts(keep: Keep) -> dict[str, int]:
    """How many units each site keeps."""
    return {name: int(mask.sum()) for name, mask in keep.items()}


def site_shares(sites: tuple[Site, ...], keep: Keep) -> dict[str, float]:
    """Share of its units that each site keeps."""
    return {site.name: keep[site.name].double().mean().item() for site in sites}


def keep_all(sites: tuple[Site, ...]) -> dict[str, Tensor]:
    """The keep masks of the dense model."""
    return {site.name: torch.ones(site.units, dtype=torch.bool) for site in sites}


def grouped(sites: tuple[Site, ...]) -> dict[str, tuple[Site, ...]]:
    """Sites by tower and kind, under names like ``vision/attention``."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(f"{site.tower}/{site.kind}", []).append(site)
    return {name: tuple(members) for name, members in groups.items()}


def kept_share(sites: tuple[Site, ...], keep: Keep) -> dict[str, float]:
    """Share of units kept, per tower and kind, for example ``{"vision/attention": 0.5}``."""
    return {
        group: torch.cat([keep[site.name] for site in members]).double().mean().item()
        for group, members in grouped(sites).items()
    }
