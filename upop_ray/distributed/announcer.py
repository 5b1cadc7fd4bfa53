"""Says what happens to the points of a sweep, and keeps its curves and its progress."""

import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from ray import tune

from upop_ray.config import Experiment
from upop_ray.distributed.losses import unexpected
from upop_ray.distributed.plan import Member, cells, row_of
from upop_ray.distributed.tracker import Tracker
from upop_ray.distributed.waiting import WaitingPoints
from upop_ray.errors import UpopError
from upop_ray.reporting.curves import Curves
from upop_ray.reporting.hparams import Comparison
from upop_ray.reporting.live import live_table
from upop_ray.reporting.overview import Overview
from upop_ray.reporting.points import PointRow, read_points
from upop_ray.store import Store, SweepPaths
from upop_ray.terminal import LiveView, console
from upop_ray.tracking import FIRST_PAGE, viewer

#: seconds between two looks at all points for the curves
_CURVES_SECONDS = 5.0
#: seconds between two drawings of the live table
_VIEW_SECONDS = 0.5


class Announcer(tune.Callback):
    """A callback of Ray Tune.

    :ivar view: the live table, which the caller opens while points are computed
    """

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self._experiment, self._store = experiment, store
        self._curves = Curves(store, experiment.name)
        self._overview = Overview(store, experiment.name)
        self._comparison = Comparison(store, experiment.name, _varied(experiment))
        self._tracker = Tracker(store, experiment.name)
        self.view = LiveView(transient=True)
        self._waiting = WaitingPoints(experiment.replica, self._waits)
        self._begun: dict[str, float] = {}
        self._defects: Counter[str] = Counter()
        self._rows: dict[str, PointRow] = {}
        self._total = self._done = 0
        self._drawn_at = self._viewed_at = -_CURVES_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never made, and open event files cannot be pickled."""
        return {}

    def begin(self, reused: int, missing: int) -> None:
        """Say what there is to do."""
        self._total = missing
        name = self._experiment.name
        _say(f"sweep {name}: {reused} points are in the store already, {missing} to compute")
        _say(f"{viewer(self._store, SweepPaths(name).tensorboard)}    # {FIRST_PAGE}")
        # what it has computed for another grid belongs to its curves too
        self._rows = {row.hash: row for row in read_points(self._store, name)} | self._rows
        self._comparison.begin(list(self._rows.values()))
        self._tracker.begin(missing + sum(row.state in ("finished", "stopped") for row in self._rows.values()))
        self._update()

    def changed(self, member: Member, manifest: dict[str, Any] | None) -> None:
        """Take notice of a point that is proposed, and say how one has ended."""
        self._rows[member.hash] = row_of(member, manifest)
        if manifest is None and member.state == "proposed":
            return
        self._done += 1
        self._tracker.left(member.label)
        took = f"{time.monotonic() - self._begun.get(member.label, time.monotonic()):.0f} s"
        place = f"[{self._done}/{self._total}]"
        if manifest is None:
            _say(f"{member.state:8} {member.label} {place} {took} {member.cause}")
        else:
            self._comparison.add(self._rows[member.hash])
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
        self._tracker.started(label)
        _say(f"started  {label}")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        label, note = trial.config["label"], result.get("note")
        self._tracker.reported(label, result)
        if note:
            _say(f"         {label}: {note}")
        if note and (result["state"] == "crashed" or note.startswith("warning")):
            self._tracker.note(f"{label}: {note}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        label, defect = trial.config["label"], unexpected(trial.get_pickled_error())
        self._tracker.left(label)
        if defect is None:
            self._tracker.note(f"{label}: its node was lost or left")
            _say(f"again    {label}: its node was lost or is to be left; it goes on elsewhere")
            return
        self._tracker.note(f"{label}: {defect}")
        _say(f"again    {label}: {defect}")
        self._defects[label] += 1
        if self._defects[label] > self._experiment.sweep.retries:
            raise UpopError(f"{label}: {defect}; sweep.retries = {self._experiment.sweep.retries} are used up")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._waiting.look(trials)
        self._tracker.keep()
        if self.view.is_live and time.monotonic() - self._viewed_at >= _VIEW_SECONDS:
            self._viewed_at = time.monotonic()
            rows = list(self._rows.values())
            self.view.show(live_table(self._experiment.name, rows, self._tracker.progress(), time.time()))

    def end(self, interrupted: bool) -> None:
        """Write the last of the curves, and how the sweep ended."""
        rows = list(self._rows.values())
        self._curves.update(rows)
        self._curves.close()
        self._overview.update(rows, last=True)
        self._overview.close()
        self._tracker.end(interrupted)

    def _waits(self, reason: str) -> None:
        self._tracker.waiting = reason
        if not self.view.is_live:
            _say(reason)

    def _update(self) -> None:
        if time.monotonic() - self._drawn_at < _CURVES_SECONDS:
            return
        self._drawn_at = time.monotonic()
        settled = {(row.method, row.ratio, row.seed) for row in self._rows.values() if row.state != "proposed"}
        pending = [(c.method, c.ratio) for c in cells(self._experiment) if (c.method, c.ratio, c.seed) not in settled]
        pending += [(row.method, row.ratio) for row in self._rows.values() if row.state == "proposed"]
        self._curves.update(list(self._rows.values()), pending)
        self._overview.update(list(self._rows.values()))


def _varied(experiment: Experiment) -> set[str]:
    """Dotted settings in which points differ besides method and ratio."""
    sweep = experiment.sweep
    seeds = {"seed"} if len(sweep.seeds) > 1 else set()
    return seeds | {name for settings in sweep.by_ratio.values() for name in settings} | set(sweep.space)


def _say(line: str) -> None:
    console.print(line)
