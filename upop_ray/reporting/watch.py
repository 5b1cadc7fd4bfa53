"""The live table of a sweep from another shell, by what the store says: reads only, needs no Ray."""

import time

from upop_ray.errors import StoreError
from upop_ray.reporting.live import hours_line, live_table, running_line, state_line
from upop_ray.reporting.points import PointRow, read_points
from upop_ray.reporting.progress import SweepProgress, read_progress
from upop_ray.reporting.sweeps import sweep_names
from upop_ray.store import Store, SweepPaths
from upop_ray.terminal import LiveView, console

#: seconds between two looks, at a folder and at a bucket
_FOLDER, _BUCKET = 2.0, 10.0


class Watcher:
    """Reads a sweep again and again; what has ended is not read twice."""

    def __init__(self, store: Store, sweep: str) -> None:
        """
        :raises StoreError: there is no such sweep
        """
        if not store.exists(SweepPaths(sweep).experiment):
            there = ", ".join(sweep_names(store)[:20])
            raise StoreError(f"{store.path('sweeps')}: has no sweep {sweep!r}; there is {there}")
        self._store, self._sweep = store, sweep
        self._rows: dict[str, PointRow] = {}
        self._experiment = b""

    def look(self) -> tuple[list[PointRow], SweepProgress]:
        """The points as they are now, and how far the run is."""
        experiment = self._store.read(SweepPaths(self._sweep).experiment)
        # another run may have other settings, and with them other points
        is_same, self._experiment = experiment == self._experiment, experiment
        settled = [row for row in self._rows.values() if row.manifest and is_same]
        rows = read_points(self._store, self._sweep, settled)
        self._rows = {row.hash: row for row in rows}
        progress = read_progress(self._store, self._sweep)
        if progress is None:
            # of a version that did not write how far it was
            progress = SweepProgress("of unknown state", 0.0, len(rows))
        return rows, progress


def watch(store: Store, sweep: str) -> int:
    """Show a sweep until its run has ended or Ctrl-C; without a terminal a line whenever something has changed.

    :returns: the exit code, 0
    :raises StoreError: there is no such sweep, or the store does not answer
    """
    watcher = Watcher(store, sweep)
    try:
        with LiveView() as view:
            while not _shown(view, sweep, *watcher.look()):
                time.sleep(_FOLDER if store.is_local else _BUCKET)
    except KeyboardInterrupt:
        # the way to leave; the sweep goes on
        pass
    return 0


def latest_sweep(store: Store) -> str:
    """The sweep that was run last.

    :raises StoreError: there is none
    """
    found = {name: read_progress(store, name) for name in sweep_names(store)}
    return max(found, key=lambda name: progress.updated if (progress := found[name]) else 0.0)


def _shown(view: LiveView, sweep: str, rows: list[PointRow], progress: SweepProgress) -> bool:
    """Show a moment; returns whether it was the last."""
    now = time.time()
    if view.is_live:
        view.show(live_table(sweep, rows, progress, now))
    else:
        view.say_once(state_line(sweep, rows, progress, now))
        for point in progress.running:
            view.say_once(running_line(point))
    if progress.state == "running":
        return False
    if not view.is_live:
        console.print(hours_line(rows, progress))
    return True
