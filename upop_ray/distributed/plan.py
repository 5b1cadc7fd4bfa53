"""Which points a sweep has: the cells of its grid, the draws in each, and what the store says of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from upop_ray.config import Experiment, at_ratio, replaced
from upop_ray.errors import ConfigError
from upop_ray.identity import NOT_HASHED
from upop_ray.reporting.points import PointRow, point_label
from upop_ray.store import PointPaths, Store, SweepPaths
from upop_ray.store.many import read_json_if_there, read_jsons
from upop_ray.training.prepared import content_addresses


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    ratio: float
    method: str
    seed: int

    @property
    def group(self) -> str:
        """What early stopping compares within."""
        return f"{self.method}/{self.ratio}"

    def settings(self) -> dict[str, Any]:
        """The dotted settings that the cell fixes."""
        return {"search.ratio": self.ratio, "search.method": self.method, "seed": self.seed}


@dataclass(frozen=True)
class Member:
    """A point that belongs to a sweep.

    :param drawn: dotted settings that were drawn from the space
    :param state: ``proposed``, ``stopped`` (early) or ``failed``; a finished one has a manifest
    """

    hash: str
    cell: Cell
    draw: int = 0
    drawn: Mapping[str, Any] = field(default_factory=dict)
    state: str = "proposed"
    cause: str = ""
    validation: float | None = None

    @property
    def label(self) -> str:
        """Name of its TensorBoard run."""
        cell = self.cell
        return point_label((cell.method, cell.ratio, cell.seed), self.draw if self.drawn else None)


def cells(experiment: Experiment) -> list[Cell]:
    """The grid, lowest ratio first, so that curves grow from the dense end."""
    sweep = experiment.sweep
    grid = itertools.product(sorted(sweep.ratios), sweep.methods, sweep.seeds)
    return [Cell(ratio, method, seed) for ratio, method, seed in grid]


def point_of(experiment: Experiment, cell: Cell, drawn: Mapping[str, Any]) -> Experiment:
    """The experiment of one point."""
    return replaced(at_ratio(experiment, cell.ratio), {**cell.settings(), **drawn})


def member_of(experiment: Experiment, cell: Cell, draw: int = 0, drawn: Mapping[str, Any] | None = None) -> Member:
    """The point of a cell with drawn settings."""
    drawn = dict(drawn or {})
    address, _ = content_addresses(point_of(experiment, cell, drawn))
    return Member(address, cell, draw, drawn)


def note(store: Store, sweep: str, member: Member) -> None:
    """Write down that a point belongs to the sweep, and its state."""
    content = {
        "schema_version": 1,
        "hash": member.hash,
        "cell": {"ratio": member.cell.ratio, "method": member.cell.method, "seed": member.cell.seed},
        "draw": member.draw,
        "drawn": dict(member.drawn),
        "state": member.state,
        "cause": member.cause,
        "validation": member.validation,
    }
    store.write_json(f"{SweepPaths(sweep).members}/{member.hash}.json", content)


def known_members(store: Store, experiment: Experiment) -> list[Member]:
    """Points that the sweep proposed before and that its settings would propose again."""
    folder = SweepPaths(experiment.name).members
    wanted = set(cells(experiment))
    members = []
    for content in read_jsons(store, [f"{folder}/{name}" for name in store.list(folder)]):
        cell = Cell(**content["cell"])
        member = Member(**{k: v for k, v in content.items() if k not in ("schema_version", "cell")}, cell=cell)
        same_space = set(member.drawn) == set(experiment.sweep.space)
        if cell in wanted and same_space and member_of(experiment, cell, 0, member.drawn).hash == member.hash:
            members.append(member)
    return members


def row_of(member: Member, manifest: dict[str, Any] | None) -> PointRow:
    """The point as reports have it."""
    cell, state = member.cell, "finished" if manifest else member.state
    return PointRow(
        cell.method, cell.ratio, cell.seed, member.draw, member.drawn, member.hash, state, member.cause, manifest
    )


def finished(store: Store, member: Member) -> dict[str, Any] | None:
    """The point's manifest, or None when it has none."""
    manifest: dict[str, Any] | None = read_json_if_there(store, PointPaths(member.hash).manifest)
    return manifest


def manifests(store: Store, members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """Manifests of those members that have one, by hash."""
    hashes = [member.hash for member in members if member.hash]
    found = read_jsons(store, [PointPaths(hash).manifest for hash in hashes])
    return {hash: manifest for hash, manifest in zip(hashes, found, strict=True) if manifest is not None}


def check_space(experiment: Experiment) -> None:
    """Make sure that every drawn setting exists and takes its bounds.

    :raises ConfigError: names the setting
    """
    for name, rule in experiment.sweep.space.items():
        field = f"sweep.space.{name}"
        if name in ("search.ratio", "search.method", "seed"):
            grid = {"search.ratio": "ratios", "search.method": "methods", "seed": "seeds"}[name]
            raise ConfigError(field, "is a column of the grid", f"use sweep.{grid}")
        if name.partition(".")[0] in NOT_HASHED:
            raise ConfigError(field, "does not change what a point computes", "set it for the whole sweep instead")
        if len(rule) != 1 or next(iter(rule)) not in ("uniform", "log_uniform", "choice"):
            raise ConfigError(field, f"unknown rule {rule!r}", "use uniform: [low, high], log_uniform or choice: [...]")
        kind, values = next(iter(rule.items()))
        bounds = all(isinstance(v, int | float) for v in values) and len(values) == 2
        if kind != "choice" and not (bounds and values[0] < values[1]):
            raise ConfigError(field, f"{kind} needs [low, high] with low < high, got {values!r}", "correct the bounds")
        if kind == "log_uniform" and values[0] <= 0:
            raise ConfigError(field, f"log_uniform needs low > 0, got {values[0]}", "raise it")
        if not values:
            raise ConfigError(field, "choice is empty", "name at least one value")
        for value in values:
            replaced(experiment, {name: value})
