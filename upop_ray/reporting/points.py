"""The points of a sweep as the store has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from upop_ray.errors import StoreError
from upop_ray.reporting.asked import Asked, read_asked
from upop_ray.store import PointPaths, Store, SweepPaths
from upop_ray.store.many import read_jsons

#: state of a point that the sweep computed when it had other settings
OTHER = "other settings"
#: what every manifest has that is read of it
_MANIFEST = {"headline", "settings", "dense", "metrics", "parameters", "macs", "budget", "compression", "seconds"}
#: points of the headline metric by which two evaluations of one model on one data set differ less, also on GPUs
_SAME_SCORE = 0.05


@dataclass(frozen=True)
class PointRow:
    """One point of a sweep.

    :param state: ``finished``, ``stopped`` early, ``failed``, ``proposed`` (begun or waiting), or :data:`OTHER`
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
    """Rows of all points that the sweep has proposed with its present settings, by method, ratio, seed and draw.

    :param known: finished points that have been read before, and are not read again
    :raises StoreError: something of a point cannot be read
    """
    return read_all_points(store, sweep, known)[0]


def read_all_points(store: Store, sweep: str, known: Sequence[PointRow] = ()) -> tuple[list[PointRow], list[PointRow]]:
    """Those of :func:`read_points`, and those that the sweep computed with other settings, which no curve may mix.

    The cause of the latter says in what they differ. Ratios, methods and seeds that are not asked for any more are no
    difference, and neither is another place of the same model and data.
    """
    folder = SweepPaths(sweep).members
    names = set(store.list(folder)) - {f"{row.hash}.json" for row in known}
    paths = [f"{folder}/{name}" for name in sorted(names) if name.endswith(".json")]
    contents = read_jsons(store, paths)
    # one may have been removed meanwhile
    rows = [_row(store.path(path), one) for path, one in zip(paths, contents, strict=True) if one is not None]
    manifests = read_jsons(store, [PointPaths(row.hash).manifest for row in rows])
    rows = [_finished(store, row, found) for row, found in zip(rows, manifests, strict=True)]
    asked = read_asked(store, sweep)
    differences = dict.fromkeys((row.hash for row in rows), "")
    if asked is not None:
        differences |= _differences(store, rows, asked)
        same = [row for row in (*known, *rows) if row.manifest and not differences.get(row.hash)]
        differences |= _elsewhere(same, asked)
    present = [*known, *(row for row in rows if not differences[row.hash])]
    others = [replace(row, state=OTHER, cause=differences[row.hash]) for row in rows if differences[row.hash]]
    return sorted(present, key=_place), sorted(others, key=_place)


def _row(path: str, content: Any) -> PointRow:
    """A point that has not finished, by what the sweep has noted of it."""
    try:
        cell = (content["cell"]["method"], content["cell"]["ratio"], content["cell"]["seed"])
        noted = (content["draw"], content["drawn"], content["hash"], content["state"], content["cause"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: is not what a sweep notes of a point ({error!r}); remove it") from error
    return PointRow(*cell, *noted, None)


def _finished(store: Store, row: PointRow, manifest: Any) -> PointRow:
    """The same point with its manifest, if it has one."""
    if manifest is None:
        return row
    path = store.path(PointPaths(row.hash).manifest)
    missing = _MANIFEST - set(manifest if isinstance(manifest, dict) else ())
    if missing:
        told = ", ".join(sorted(missing))
        raise StoreError(f"{path}: is no manifest, it lacks {told}; remove it, and run the sweep again")
    for name, splits in (("metrics", manifest["metrics"]), ("dense", manifest["dense"])):
        for split in ("validation", "test"):
            if manifest["headline"] not in splits.get(split, ()):
                raise StoreError(f"{path}: has no {name}.{split}.{manifest['headline']}; restore or remove it")
    return replace(row, state="finished", manifest=manifest)


def _differences(store: Store, rows: Sequence[PointRow], asked: Asked) -> dict[str, str]:
    """Hash -> in what the settings of a point are others than those of its sweep; empty where they are not.

    A point that has never begun has no settings, and counts as one of the sweep.
    """
    begun = [row for row in rows if row.manifest is None]
    noted = read_jsons(store, [PointPaths(row.hash).settings for row in begun])
    settings = {row.hash: one for row, one in zip(begun, noted, strict=True)}
    settings |= {row.hash: row.manifest["settings"] for row in rows if row.manifest}
    return {
        row.hash: asked.difference((row.method, row.ratio, row.seed), row.drawn, settings[row.hash])
        for row in rows
        if isinstance(settings[row.hash], dict)
    }


def _elsewhere(rows: Sequence[PointRow], asked: Asked) -> dict[str, str]:
    """Those of finished points that started from another model or other data than the sweep has.

    Content is not in a manifest, but what the dense model scores on it is: a point of another place with the scores of
    those that are here has the same content. Where none is here, that cannot be told.
    """
    places = {row.hash: asked.is_here(row.manifest["settings"]) for row in rows if row.manifest}
    here = [row for row in rows if places[row.hash]]
    away = [row for row in rows if here and not places[row.hash]]
    return {row.hash: "another model or other data" for row in away if not any(_same_dense(row, one) for one in here)}


def _same_dense(first: PointRow, second: PointRow) -> bool:
    """Whether two points have the same dense model on the same data, as far as sizes and scores tell."""
    sizes = [[(row.manifest or {})["dense"][name] for name in ("parameters", "macs")] for row in (first, second)]
    scores = [abs(first.dense_metric(split) - second.dense_metric(split)) for split in ("validation", "test")]
    return sizes[0] == sizes[1] and max(scores) < _SAME_SCORE


def _place(row: PointRow) -> tuple[str, float, int, int]:
    return row.method, row.ratio, row.seed, row.draw


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
