"""The points of a sweep as the store has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from upop_ray.store import PointPaths, Store, SweepPaths
from upop_ray.store.many import read_jsons


@dataclass(frozen=True)
class PointRow:
    """One point of a sweep.

    :param state: ``finished``, ``stopped`` early, ``failed``, or ``proposed`` (begun or waiting)
    :param manifest: of a finished point, else None
    """

    method: str
    ratio: float
    seed: int
    draw: int
    drawn: Mapping[str, Any]
    hash: str
    state: str
    cause: str
    manifest: Mapping[str, Any] | None

    @property
    def label(self) -> str:
        """Its name for people, and of its TensorBoard run."""
        return point_label((self.method, self.ratio, self.seed), self.draw if self.drawn else None)

    def metric(self, split: str) -> float:
        """The headline metric on ``validation`` or ``test``."""
        assert self.manifest is not None
        return float(self.manifest["metrics"][split][self.manifest["headline"]])

    def dense_metric(self, split: str) -> float:
        """The dense model's headline metric."""
        assert self.manifest is not None
        return float(self.manifest["dense"][split][self.manifest["headline"]])


def point_label(cell: tuple[str, float, int], draw: int | None = None) -> str:
    """Name of the point of a (method, ratio, seed), with the number of its draw where settings were drawn.

    >>> point_label(("upop", 0.5, 0))
    'upop-0.5-seed0'
    """
    method, ratio, seed = cell
    return f"{method}-{ratio:g}-seed{seed}" + ("" if draw is None else f"-draw{draw}")


def read_points(store: Store, sweep: str, known: Sequence[PointRow] = ()) -> list[PointRow]:
    """Rows of all points that the sweep has proposed, by method, ratio, seed and draw.

    :param known: finished points that have been read before, and are not read again
    """
    folder = SweepPaths(sweep).members
    names = set(store.list(folder)) - {f"{row.hash}.json" for row in known}
    contents = read_jsons(store, [f"{folder}/{name}" for name in sorted(names)])
    manifests = read_jsons(store, [PointPaths(content["hash"]).manifest for content in contents])
    rows = list(known)
    for content, manifest in zip(contents, manifests, strict=True):
        cell = content["cell"]
        rows.append(
            PointRow(
                cell["method"],
                cell["ratio"],
                cell["seed"],
                content["draw"],
                content["drawn"],
                content["hash"],
                "finished" if manifest else content["state"],
                content["cause"],
                manifest,
            )
        )
    return sorted(rows, key=lambda row: (row.method, row.ratio, row.seed, row.draw))


def best_draws(rows: Sequence[PointRow]) -> list[PointRow]:
    """Of each method, ratio and seed the finished draw that is best on validation."""
    best: dict[tuple[str, float, int], PointRow] = {}
    for row in rows:
        key = (row.method, row.ratio, row.seed)
        if row.manifest and (key not in best or row.metric("validation") > best[key].metric("validation")):
            best[key] = row
    return list(best.values())


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample deviation (0 for a single value)."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0
