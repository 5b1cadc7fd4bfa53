"""Dead settings: drawn settings of a sweep whose values change nothing."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upop_ray.config import Experiment, at_ratio, replaced
from upop_ray.errors import ConfigError
from upop_ray.identity import point_settings
from upop_ray.reporting.points import PointRow

#: relative differences up to which metrics and losses count as equal; losses tell apart what coarse metrics of few
#: examples do not, such as two learning rates
_METRICS, _LOSSES = 1e-9, 1e-6
#: settings of the search act before its masks are done, those of retraining afterwards
_SEARCH, _RETRAIN = "search.", "retrain."
_Key = tuple[str, str]


@dataclass(frozen=True)
class DeadSetting:
    """A drawn setting that changes nothing with a method.

    :param rows: two points that differ in it and are equal; None for a setting that the method does not read
    """

    method: str
    name: str
    rows: tuple[PointRow, PointRow] | None = None

    def text(self) -> str:
        """One line that names it and says how one knows."""
        if self.rows is None:
            return f"{self.name} is not read by method {self.method}, and not drawn there"
        first, second = self.rows
        values = " and ".join(_shown(row.drawn[self.name]) for row in self.rows)
        return (
            f"{self.name} has changed nothing so far with method {self.method}: {values} gave the same masks, losses "
            f"and metrics (ratio {first.ratio:g}, seed {first.seed}, draws {first.draw} and {second.draw})"
        )


class DeadSettings:
    """Finds dead settings in finished points as they come.

    Two points of one cell that differ in some drawn settings and are equal prove, for their values, that all of these
    changed nothing. Where they are equal up to the end of the search, this holds for those of the search. A setting is
    dead with a method while there is such a pair, and no pair that differs in it alone and in its results.
    """

    def __init__(self, rows: Sequence[PointRow] = ()) -> None:
        self._cells: dict[tuple[str, float, int], list[PointRow]] = {}
        self._equal: dict[_Key, tuple[PointRow, PointRow]] = {}
        self._alive: set[_Key] = set()
        for row in rows:
            self.add(row)

    def add(self, row: PointRow) -> None:
        """Compare a point with the others of its cell; one that is not finished, or has no draws, tells nothing."""
        if row.manifest is None or not row.drawn or "masks_hash" not in row.manifest:
            return
        others = self._cells.setdefault((row.method, row.ratio, row.seed), [])
        for other in others:
            self._compare(*sorted((other, row), key=lambda row: row.draw))
        others.append(row)

    def found(self) -> list[DeadSetting]:
        """The dead settings, by method and name."""
        return [
            DeadSetting(method, name, pair)
            for (method, name), pair in sorted(self._equal.items(), key=lambda item: item[0])
            if (method, name) not in self._alive
        ]

    def _compare(self, first: PointRow, second: PointRow) -> None:
        assert first.manifest is not None and second.manifest is not None
        differing = _differing(first, second)
        whole = _same(_results(first.manifest), _results(second.manifest))
        self._conclude(first, second, differing, whole)
        of_search = {name for name in differing if name.startswith(_SEARCH)}
        # what else differs would act in the search too
        if whole or not all(name.startswith((_SEARCH, _RETRAIN)) for name in differing):
            return
        # without a search its settings may act in retraining: its epochs do
        if all("search" in manifest.get("losses", {}) for manifest in (first.manifest, second.manifest)):
            same = _same(_searched(first.manifest), _searched(second.manifest))
            self._conclude(first, second, of_search, same)

    def _conclude(self, first: PointRow, second: PointRow, differing: set[str], same: bool) -> None:
        keys = [(first.method, name) for name in differing]
        if same:
            self._equal.update({key: (first, second) for key in keys if key not in self._equal})
        elif len(keys) == 1:
            self._alive.add(keys[0])


def dead_settings(rows: Sequence[PointRow]) -> list[DeadSetting]:
    """The dead settings of a sweep, from its points as :func:`upop_ray.reporting.points.read_points` gives them.

    For a page: one line :meth:`DeadSetting.text` for each, after those of :func:`unread_settings` of the sweep's
    experiment where that can still be parsed; a section that says that none was found where settings were drawn.
    """
    return DeadSettings(rows).found()


def unread_settings(experiment: Experiment) -> list[DeadSetting]:
    """Drawn settings that a method of the sweep does not read, which is known before anything runs."""
    sweep = experiment.sweep
    return [
        DeadSetting(method, name)
        for method in sorted(sweep.methods)
        for name in sweep.space
        if not _is_read(experiment, method, name)
    ]


def first_value(rule: Mapping[str, Sequence[Any]]) -> Any:
    """The first value of a rule of ``sweep.space``: the first choice, or the lower bound."""
    return next(iter(rule.values()))[0]


def _is_read(experiment: Experiment, method: str, name: str) -> bool:
    values = next(iter(experiment.sweep.space[name].values()))
    try:
        return any(
            len({json.dumps(point_settings(replaced(start, {name: value})), sort_keys=True) for value in values}) > 1
            for start in _starts(experiment, method)
        )
    except ConfigError:
        # some draws go with some others only; what is wrong with one is said when it is drawn
        return True


def _starts(experiment: Experiment, method: str) -> Iterator[Experiment]:
    """The points around which settings are drawn, with the other draws at one end and at the other."""
    sweep = experiment.sweep
    ratios = {ratio for ratio in sweep.ratios if ratio in sweep.by_ratio} | {sweep.ratios[0]}
    for ratio, end in itertools.product(sorted(ratios), (0, -1)):
        drawn = {name: next(iter(rule.values()))[end] for name, rule in sweep.space.items()}
        yield replaced(at_ratio(experiment, ratio), {**drawn, "search.ratio": ratio, "search.method": method})


def _differing(first: PointRow, second: PointRow) -> set[str]:
    names = set(first.drawn) | set(second.drawn)
    return {name for name in names if first.drawn.get(name) != second.drawn.get(name)}


def _results(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: manifest.get(name, {}) for name in ("masks_hash", "metrics", "losses")}


def _searched(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of a point at the end of its search."""
    return {
        "masks_hash": manifest["masks_hash"],
        "metrics": manifest["metrics"]["before_retraining"],
        "losses": manifest["losses"]["search"],
    }


def _same(first: Any, second: Any, tolerance: float = _METRICS) -> bool:
    """Whether two results are equal, numbers up to rounding."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(
            _same(first[key], second[key], _LOSSES if key == "losses" else tolerance) for key in first
        )
    if isinstance(first, float | int) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=tolerance)
    return bool(first == second)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
