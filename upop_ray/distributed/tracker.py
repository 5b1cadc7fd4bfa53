"""How far each point of a running sweep is, kept in the store for those who watch from elsewhere."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from upop_ray.errors import StoreError
from upop_ray.reporting.ledger import Hours, reserved
from upop_ray.reporting.progress import Running, SweepProgress
from upop_ray.store import Store, SweepPaths

_LOG = logging.getLogger(__name__)
#: seconds between two writes, and between two looks at what is noted of hours
_WRITE, _HOURS = 10.0, 30.0
_NOTES = 3


@dataclass
class _Point:
    """A point, and since when it is in its phase: (monotonic seconds, step)."""

    shown: Running
    since: tuple[float, int] = (0.0, 0)


class Tracker:
    """Takes in what points report.

    :ivar waiting: why points wait for a place, if they do
    """

    def __init__(self, store: Store, sweep: str) -> None:
        self._store, self._sweep = store.hasty(), sweep
        self._points: dict[str, _Point] = {}
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._hours = Hours()
        self._total = 0
        self.waiting = ""
        self._written = self._looked = time.monotonic()
        self._is_told = False

    def begin(self, total: int) -> None:
        """The sweep has so many points."""
        self._total = total
        self._look_at_hours()
        self._write(self.progress())

    def started(self, label: str) -> None:
        """A point has its place."""
        self._points[label] = _Point(Running(label))
        self.waiting = ""

    def left(self, label: str) -> None:
        """A point has ended."""
        self._points.pop(label, None)

    def note(self, text: str) -> None:
        """Something went wrong, and the point goes on."""
        self._notes.append(text)

    def reported(self, label: str, result: Mapping[str, Any]) -> None:
        """A point has reported; a report without steps is none of a phase."""
        if not result.get("steps") or label not in self._points:
            return
        point, now, step = self._points[label], time.monotonic(), int(result["step"])
        before = point.shown
        if result["state"] != before.phase or step < point.since[1]:
            before, point.since = Running(label), (now, step)
        (since, first), steps = point.since, int(result["steps"])
        left = (steps - step) * (now - since) / (step - first) if step > first else None
        loss = before.loss if result.get("loss") is None else float(result["loss"])
        point.shown = replace(before, phase=result["state"], step=step, steps=steps, loss=loss, left=left)

    def progress(self) -> SweepProgress:
        """This moment."""
        running = tuple(point.shown for point in self._points.values())
        return SweepProgress(
            "running", time.time(), self._total, running, self.waiting, tuple(self._notes), self._hours
        )

    def keep(self) -> None:
        """Write this moment into the store, unless that was done just now."""
        now = time.monotonic()
        if now - self._looked >= _HOURS:
            self._looked = now
            self._look_at_hours()
        if now - self._written >= _WRITE:
            self._written = now
            self._write(self.progress())

    def end(self, interrupted: bool) -> None:
        """Write the last moment."""
        self._look_at_hours()
        self._write(self.progress().ended("interrupted" if interrupted else "ended", time.time()))

    def _look_at_hours(self) -> None:
        try:
            self._hours = reserved(self._store, self._sweep)
        except StoreError as error:
            self._tell(error)

    def _write(self, progress: SweepProgress) -> None:
        try:
            self._store.write_json(SweepPaths(self._sweep).progress, progress.as_json())
            self._is_told = False
        except StoreError as error:
            self._tell(error)

    def _tell(self, error: StoreError) -> None:
        """Say it once in an outage: who watches sees an older moment, and nothing else is lost."""
        if not self._is_told:
            _LOG.warning(f"progress is kept later: {error}")
        self._is_told = True
