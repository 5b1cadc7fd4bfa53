"""Sweeps as a report reads them: their points, what was asked, and what was published."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upop_ray.config import Published, parse
from upop_ray.errors import ConfigError, StoreError
from upop_ray.reporting.asked import read_experiment
from upop_ray.reporting.points import PointRow, read_all_points
from upop_ray.reporting.published import read_published
from upop_ray.store import Store, SweepPaths
from upop_ray.store.many import list_folders

_SHOWN = 20
#: what a sweep may be called
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SweepResults:
    """One sweep of a store.

    :param rows: all points that it proposed with the settings that it has
    :param experiment: what was asked, as its experiment.yaml has it
    :param versions: of what it ran with, by package
    :param others: points that it computed when it had other settings, which are compared with nothing
    """

    name: str
    rows: Sequence[PointRow]
    experiment: Mapping[str, Any]
    versions: Mapping[str, str]
    published: Published | None
    others: Sequence[PointRow] = ()

    @property
    def finished(self) -> list[PointRow]:
        """Rows that have a manifest."""
        return [row for row in self.rows if row.manifest]

    @property
    def measure(self) -> tuple[str, str]:
        """(headline metric, data): sweeps of one measure can stand in one picture. Of a sweep with a finished point."""
        manifest = self.finished[0].manifest
        assert manifest is not None
        return str(manifest["headline"]), str(manifest["settings"]["data"]["path"])


def read_sweeps(store: Store, names: Sequence[str] = ()) -> list[SweepResults]:
    """The named sweeps of a store, or all, in which a point is finished.

    :raises StoreError: there is no store, no such sweep, or no finished point in any of them
    """
    there = sweep_names(store)
    for name in names:
        if name not in there:
            raise StoreError(f"{store.uri}: has no sweep {name!r}; it has {', '.join(there[:_SHOWN])}")
    found = [_read(store, name) for name in dict.fromkeys(names or there)]
    finished = [sweep for sweep in found if sweep.finished]
    if not finished:
        raise StoreError(f"{store.uri}: no point is finished yet of {'; '.join(map(_progress, found))}")
    return finished


def sweep_names(store: Store) -> list[str]:
    """Names of the sweeps of a store.

    :raises StoreError: there are none
    """
    found = [name for name in store.list("sweeps") if _NAME.fullmatch(name)]
    inside = list_folders(store, [SweepPaths(name).root for name in found])
    # whatever else lies there is not ours
    names = [name for name, files in zip(found, inside, strict=True) if "experiment.yaml" in files]
    if not names:
        raise StoreError(
            f"{store.uri}: there is no sweep here; name the folder or s3:// address that sweeps have as their setting "
            "store (it holds sweeps/NAME)"
        )
    return names


def measures(sweeps: Sequence[SweepResults]) -> dict[tuple[str, str], list[SweepResults]]:
    """Sweeps by what they measure, in order."""
    result: dict[tuple[str, str], list[SweepResults]] = {}
    for sweep in sweeps:
        result.setdefault(sweep.measure, []).append(sweep)
    return result


def _read(store: Store, name: str) -> SweepResults:
    path = store.path(SweepPaths(name).experiment)
    experiment, text = read_experiment(store, name)
    sweep = experiment.setdefault("sweep", {})
    for field, group in (("sweep", sweep), ("replica", experiment.get("replica", {}))):
        if not isinstance(group, dict):
            raise StoreError(f"{path}: {field} is {group!r}; it is a group of settings, correct the file")
    try:
        published = read_published(store, name)
        # what a report reads of it; everything else may be of a version with other settings
        parse({"sweep": {part: sweep[part] for part in ("price", "space") if sweep.get(part) is not None}})
    except ConfigError as error:
        raise StoreError(f"{path}: {error}") from error
    lines = [line[2:].rpartition(" ") for line in text.splitlines() if line.startswith("# ")]
    versions = {package: version for package, _, version in lines}
    rows, others = read_all_points(store, name)
    return SweepResults(name, rows, experiment, versions, published, others)


def _progress(sweep: SweepResults) -> str:
    """How many points a sweep without a finished one has, and why the first failed one did."""
    states = [row.state for row in (*sweep.rows, *sweep.others)]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no point"
    cause = next((row.cause for row in sweep.rows if row.state == "failed"), "")
    return f"{sweep.name} ({counted}{f'; {cause}' if cause else ''})"


def quantity(value: float) -> str:
    """A count for people: ``1.48 M``, three digits."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            scaled = value / 10**power
            return f"{scaled:.{max(0, 2 - int(math.log10(abs(scaled))))}f} {letter}"
    return f"{value:g}"
