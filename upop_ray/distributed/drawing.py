"""Which of the drawn settings are worth drawing."""

from collections.abc import Collection
from typing import Any

from upop_ray.config import Experiment
from upop_ray.distributed.plan import Member, cells
from upop_ray.reporting.dead import DeadSettings, first_value, unread_settings
from upop_ray.reporting.points import PointRow
from upop_ray.terminal import console

_CURE = "leave it out of sweep.space, or set sweep.fix_dead_settings"
_FIXED = "it keeps the first of them from here on (sweep.fix_dead_settings)"


class Drawing:
    """Names dead settings of a sweep as its points finish, and fixes those that a method does not read.

    With ``sweep.fix_dead_settings`` it fixes all that are dead, after it has had the first draws of the first cell of
    each method change one setting at a time: where several change at once, a dead one is not told from the others.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._sweep = experiment.sweep
        self._unread = unread_settings(experiment)
        self._dead = DeadSettings()
        self._named: set[tuple[str, str]] = set()
        # cells go from the lowest ratio up
        self._first_cells = {cell.method: cell for cell in reversed(cells(experiment))}

    def samples(self, method: str) -> int:
        """Draws of a cell: one where its method reads none of the settings."""
        return self._sweep.samples if self._read(method) else 1

    def learn(self, row: PointRow) -> None:
        """Compare a point with those before."""
        self._dead.add(row)

    def announce(self) -> None:
        """Name what has been found, each setting once."""
        for dead in [*self._unread, *self._dead.found()]:
            if (dead.method, dead.name) not in self._named:
                self._named.add((dead.method, dead.name))
                cure = "" if dead.rows is None else "; " + (_FIXED if self._sweep.fix_dead_settings else _CURE)
                console.print(f"dead     {dead.text()}{cure}")

    def fixed(self, method: str) -> dict[str, Any]:
        """Settings that are not drawn with a method, with the value that they have there."""
        space = self._sweep.space
        fixed = {dead.name: first_value(space[dead.name]) for dead in self._unread if dead.method == method}
        for dead in self._dead.found() if self._sweep.fix_dead_settings else ():
            if dead.method == method and dead.rows is not None:
                fixed[dead.name] = dead.rows[0].drawn[dead.name]
        return fixed

    def held(self, planned: Member, members: Collection[Member]) -> dict[str, Any]:
        """Settings in which a draw is to be like the first of its cell, so that one alone is tried; often none."""
        names, tried = self._read(planned.cell.method), planned.draw - 1
        wanted = self._sweep.fix_dead_settings and planned.cell == self._first_cells[planned.cell.method]
        if not wanted or not 0 <= tried < len(names):
            return {}
        first = next((member for member in members if member.cell == planned.cell and member.draw == 0), None)
        return {} if first is None else {name: first.drawn[name] for name in names if name != names[tried]}

    def _read(self, method: str) -> list[str]:
        unread = {dead.name for dead in self._unread if dead.method == method}
        return [name for name in self._sweep.space if name not in unread]
