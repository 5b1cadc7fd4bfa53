"""Says what happens to the points of a sweep, and keeps its curves."""

import time
from collections.abc import Collection
from typing import Any

from ray import tune

from upop_ray.config import Experiment
from upop_ray.distributed.plan import Member, cells
from upop_ray.distributed.waiting import WaitingPoints
from upop_ray.reporting.curves import Curves
from upop_ray.reporting.points import PointRow, read_points
from upop_ray.store import Store, SweepPaths
from upop_ray.terminal import console
from upop_ray.tracking import viewer

#: seconds between two looks at all points for the curves
_CURVES_SECONDS = 5.0


class Announcer(tune.Callback):
    """A callback of Ray Tune."""

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self._experiment, self._store = experiment, store
        self._curves = Curves(store, experiment.name)
        self._waiting = WaitingPoints(experiment.replica, _say)
        self._begun: dict[str, float] = {}
        self._rows: dict[str, PointRow] = {}
        self._total = self._done = 0
        self._drawn_at = -_CURVES_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never made, and open event files cannot be pickled."""
        return {}

    def begin(self, reused: int, missing: int) -> None:
        """Say what there is to do."""
        self._total = missing
        name = self._experiment.name
        _say(f"sweep {name}: {reused} points are in the store already, {missing} to compute")
        _say(viewer(self._store, SweepPaths(name).tensorboard))
        # whatever the sweep has computed under other settings belongs to its curves too
        self._rows = {row.hash: row for row in read_points(self._store, name)} | self._rows
        self._update()

    def changed(self, member: Member, manifest: dict[str, Any] | None) -> None:
        """Take notice of a point that is proposed, and say how one has ended."""
        self._rows[member.hash] = _row(member, manifest)
        if manifest is None and member.state == "proposed":
            return
        self._done += 1
        took = f"{time.monotonic() - self._begun.get(member.label, time.monotonic()):.0f} s"
        place = f"[{self._done}/{self._total}]"
        if manifest is None:
            _say(f"{member.state:8} {member.label} {place} {took} {member.cause}")
        else:
            headline, metrics, dense = manifest["headline"], manifest["metrics"], manifest["dense"]
            _say(
                f"finished {member.label} {place} {took}  {manifest['parameters']:,} parameters, validation {headline} "
                f"{metrics['validation'][headline]:.2f} (dense {dense['validation'][headline]:.2f})"
            )
        self._update()

    def rows(self, hashes: Collection[str]) -> list[PointRow]:
        """The points with these hashes, by method, ratio, seed and draw."""
        rows = [row for row in self._rows.values() if row.hash in hashes]
        return sorted(rows, key=lambda row: (row.method, row.ratio, row.seed, row.draw))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        label = trial.config["label"]
        self._begun.setdefault(label, time.monotonic())
        _say(f"started  {label}")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get("note"):
            _say(f"         {trial.config['label']}: {result['note']}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _say(f"again    {trial.config['label']}: its node was lost or is to be left; it goes on elsewhere")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._waiting.look(trials)

    def end(self) -> None:
        """Write the last of the curves."""
        self._curves.update(list(self._rows.values()))
        self._curves.close()

    def _update(self) -> None:
        if time.monotonic() - self._drawn_at < _CURVES_SECONDS:
            return
        self._drawn_at = time.monotonic()
        settled = {(row.method, row.ratio, row.seed) for row in self._rows.values() if row.state != "proposed"}
        pending = [(c.method, c.ratio) for c in cells(self._experiment) if (c.method, c.ratio, c.seed) not in settled]
        pending += [(row.method, row.ratio) for row in self._rows.values() if row.state == "proposed"]
        self._curves.update(list(self._rows.values()), pending)


def _say(line: str) -> None:
    console.print(line, markup=False)


def _row(member: Member, manifest: dict[str, Any] | None) -> PointRow:
    cell, state = member.cell, "finished" if manifest else member.state
    return PointRow(
        cell.method, cell.ratio, cell.seed, member.draw, member.drawn, member.hash, state, member.cause, manifest
    )
