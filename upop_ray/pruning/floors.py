"""What must stay: the floor of every site, and floors by tower, kind and site."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from upop_ray.errors import ConfigError
from upop_ray.pruning.site import Site, grouped


@dataclass(frozen=True)
class Group:
    """The sites of one kind in one tower, and how many units they keep together at least."""

    sites: tuple[Site, ...]
    units: int


@dataclass(frozen=True)
class Limits:
    """The least that stays.

    :param sites: units that each site keeps at least; a width that alignment allows
    :param groups: what sites of one kind and tower keep together, where more is asked than of each
    """

    sites: Mapping[str, int]
    groups: tuple[Group, ...]


def limits(sites: tuple[Site, ...], floor: int, floors: Mapping[str, float], align: int = 1) -> Limits:
    """The limits that ``search.floor`` and ``search.floors`` set.

    A floor is a share of units below 1, or a count. Under the name of a site it is for that site. Under ``tower/kind``,
    ``tower`` or ``kind`` it is for the units that all sites of a kind in a tower keep together, and the first of these
    names wins over the later ones. Units of two kinds are not added up, since one of attention costs many of an MLP.

    :param align: widths are multiples of it, or dense
    :raises ConfigError: a name is nothing of the model's, or a count is more than there is
    """
    _check_names(sites, floors)
    own = {site.name: max(floor, _units(site.name, floors, site.units)) for site in sites}
    least = {site.name: aligned(own[site.name], site.units, align) for site in sites}
    return Limits(least, tuple(_groups(sites, floors, least)))


def aligned(width: int, dense: int, align: int) -> int:
    """The smallest width of at least ``width`` that is a multiple of ``align``, or the dense one where that is less."""
    return min(math.ceil(width / align) * align, dense)


def _groups(sites: tuple[Site, ...], floors: Mapping[str, float], least: Mapping[str, int]) -> Iterator[Group]:
    for name, members in grouped(sites).items():
        tower, kind = name.split("/")
        total = sum(site.units for site in members)
        chosen = next((key for key in (name, tower, kind) if key in floors), None)
        units = 0 if chosen is None else _units(chosen, floors, total)
        if units > sum(least[site.name] for site in members):
            yield Group(members, units)


def _units(name: str, floors: Mapping[str, float], units: int) -> int:
    """Units that the floor of this name stands for, of so many; 0 without one."""
    value = floors.get(name, 0)
    if value > units:
        raise ConfigError(f"search.floors.{name}", f"{value} units asked, there are {units}", f"use at most {units}")
    # 0.1 of 30 is 3, not the 4 that rounding of floats would make of it
    return math.ceil(value * units - 1e-9) if value < 1 else int(value)


def _check_names(sites: tuple[Site, ...], floors: Mapping[str, float]) -> None:
    groups = grouped(sites)
    parts = dict.fromkeys(part for name in groups for part in name.split("/"))
    names = [site.name for site in sites]
    for name in floors:
        if name not in {*parts, *groups, *names}:
            known = ", ".join([*parts, *groups])
            raise ConfigError(
                f"search.floors.{name}",
                "is no tower, kind or site of this model",
                f"use one of {known}, or of the sites {', '.join(names)}",
            )
