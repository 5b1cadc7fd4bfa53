"""What a sweep cost: hours of CPUs and GPUs by point and by what they went into, from the notes in the store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upop_ray.config import Price
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.sweeps import SweepResults
from upop_ray.store import PointPaths, Store, SweepPaths
from upop_ray.store.many import list_folders, read_jsons

#: what the hours of a point go into; ``lost`` is work that a failure or an interruption made necessary again, and all
#: of a point that failed. ``start`` is the placing of workers, loading, and handing over; ``evaluate`` has the export
PARTS = ("start", "search", "retrain", "evaluate", "lost")
_SECONDS = {"start": ("start",), "search": ("search",), "retrain": ("retrain",), "evaluate": ("evaluate", "export")}
_Note = Mapping[str, Any]


@dataclass(frozen=True)
class Hours:
    """Hours that devices were held, whether they were busy or not."""

    cpu: float = 0.0
    gpu: float = 0.0

    def __add__(self, other: "Hours") -> "Hours":
        return Hours(self.cpu + other.cpu, self.gpu + other.gpu)

    def priced(self, price: Price) -> float:
        """What they cost, in the currency of the price."""
        return self.cpu * price.cpu_hour + self.gpu * price.gpu_hour


@dataclass(frozen=True)
class PointCost:
    """What one point cost.

    :param parts: by :data:`PARTS`, what this sweep spent on it
    :param saved: what others had spent on it before, so that this sweep had not to
    :param measured: False for a point from before such notes were kept, whose own clock is taken instead
    """

    row: PointRow
    parts: Mapping[str, Hours]
    saved: Hours
    measured: bool

    @property
    def spent(self) -> Hours:
        """The sum of the parts."""
        return total(self.parts.values())


@dataclass(frozen=True)
class Ledger:
    """What a sweep cost.

    :param idle: reserved on the cluster and at work on no point: start of trials, and replicas that wait for a point;
        none where nothing was noted
    """

    points: tuple[PointCost, ...]
    idle: Hours

    @property
    def by_point(self) -> dict[str, Hours]:
        """Hash -> all that a point cost, whoever spent it."""
        return {point.row.hash: point.spent + point.saved for point in self.points}

    def part(self, name: str) -> Hours:
        """One of :data:`PARTS` over all points."""
        return total(point.parts[name] for point in self.points)

    @property
    def spent(self) -> Hours:
        """Everything: the parts of all points, and the idle time."""
        return total([*(point.spent for point in self.points), self.idle])

    @property
    def saved(self) -> Hours:
        """What points that were found in the store had cost."""
        return total(point.saved for point in self.points)


def total(hours: Iterable[Hours]) -> Hours:
    """The sum of hours."""
    return sum(hours, Hours())


def read_ledger(store: Store, sweep: str, rows: Sequence[PointRow], since: float | None = None) -> Ledger:
    """The ledger of a sweep's points, as :func:`upop_ray.reporting.points.read_points` gives them.

    A replica holds ``workers`` times ``cpus_per_worker`` CPUs and likewise GPUs; the trial's own actor has a sliver of
    its first worker's CPU. ``upop_ray.run`` holds what one worker would. For a page: one line for each of ``points``,
    a column for each of ``PARTS`` and one for ``saved``; below, ``idle``, ``spent`` and ``saved`` of the ledger; where
    ``sweep.price`` is not ``Price()``, ``hours.priced(price)`` beside them.

    :param since: count only what was begun after this moment; everything before counts as saved
    """
    notes = _read_notes(store, rows)
    mine = [[_is_of(note, sweep, since) for note in found] for found in notes]
    points = tuple(_point_cost(row, found, own, sweep) for row, found, own in zip(rows, notes, mine, strict=True))
    occupied = total(
        _hours(note["seconds"], note)
        for found, own in zip(notes, mine, strict=True)
        for note, is_own in zip(found, own, strict=True)
        if is_own
    )
    return Ledger(points, _idle(store, sweep, occupied, since))


def read_ledgers(store: Store, sweeps: Sequence[SweepResults]) -> dict[str, Ledger]:
    """Name of each sweep -> what it cost, also what it spent on points when it had other settings."""
    return {sweep.name: read_ledger(store, sweep.name, [*sweep.rows, *sweep.others]) for sweep in sweeps}


def _read_notes(store: Store, rows: Sequence[PointRow]) -> list[list[_Note]]:
    """What the attempts at each point have noted, first attempt first."""
    numbers = _attempts(store, rows)
    names = [PointPaths(row.hash).cost(number) for row, own in zip(rows, numbers, strict=True) for number in own]
    found = iter(read_jsons(store, names))
    return [[note for note in (next(found) for _ in own) if note is not None] for own in numbers]


def _attempts(store: Store, rows: Sequence[PointRow]) -> list[range]:
    """Numbers of the attempts at each point; the manifest has the last, which spares a bucket the listing."""
    open_rows = [row for row in rows if row.manifest is None]
    listed = list_folders(store, [PointPaths(row.hash).attempts for row in open_rows])
    known = {row.hash: range(len(names)) for row, names in zip(open_rows, listed, strict=True)}
    return [known[row.hash] if row.manifest is None else range(int(row.manifest["attempt"]) + 1) for row in rows]


def _is_of(note: _Note, sweep: str, since: float | None) -> bool:
    return note["sweep"] == sweep and (since is None or note["begun"] >= since)


def _point_cost(row: PointRow, notes: Sequence[_Note], own: Sequence[bool], sweep: str) -> PointCost:
    if not notes:
        return _unmeasured(row, sweep)
    seconds = _seconds_by_part(row, notes)
    spent = total(_hours(note["seconds"], note) for note, is_own in zip(notes, own, strict=True) if is_own)
    saved = total(_hours(note["seconds"], note) for note, is_own in zip(notes, own, strict=True) if not is_own)
    # attempts with other devices, or of another sweep, share the parts by the hours that they held
    occupied = sum(seconds.values()) or 1.0
    parts = {part: Hours(spent.cpu * seconds[part] / occupied, spent.gpu * seconds[part] / occupied) for part in PARTS}
    return PointCost(row, parts, saved, True)


def _seconds_by_part(row: PointRow, notes: Sequence[_Note]) -> dict[str, float]:
    """Seconds of all attempts at a point by part."""
    held = sum(note["seconds"] for note in notes)
    if row.state == "failed":
        return dict.fromkeys(PARTS, 0.0) | {"lost": held}
    reported: Mapping[str, float] = next((note["parts"] for note in reversed(notes) if note["parts"]), {})
    worked = row.manifest["seconds"] if row.manifest else reported
    seconds = {part: sum(worked.get(name, 0.0) for name in names) for part, names in _SECONDS.items()}
    # undisturbed, a point starts once
    seconds["start"] += next((note["start"] for note in notes if note["start"] is not None), 0.0)
    rest = max(0.0, held - sum(seconds.values()))
    if len(notes) > 1:
        return seconds | {"lost": rest}
    return seconds | {"start": seconds["start"] + rest, "lost": 0.0}


def _unmeasured(row: PointRow, sweep: str) -> PointCost:
    """What the point itself says, from before its attempts kept notes; nothing where it has not finished."""
    nothing = dict.fromkeys(PARTS, Hours())
    if row.manifest is None:
        return PointCost(row, nothing, Hours(), False)
    replica, workers = row.manifest["replica"], row.manifest["workers"]
    devices = {"cpus": workers * replica["cpus_per_worker"], "gpus": workers * replica["gpus_per_worker"]}
    worked = row.manifest["seconds"]
    parts = nothing | {
        part: _hours(sum(worked.get(name, 0.0) for name in names), devices) for part, names in _SECONDS.items()
    }
    if row.manifest["experiment"] == sweep:
        return PointCost(row, parts, Hours(), False)
    return PointCost(row, nothing, total(parts.values()), False)


def reserved(store: Store, sweep: str, since: float | None = None) -> Hours:
    """What the runs of a sweep had reserved, with what was idle of it; noted every 30 s while a sweep runs."""
    folder = SweepPaths(sweep).reservations
    runs = [run for run in read_jsons(store, [f"{folder}/{name}" for name in store.list(folder)]) if run]
    counted = [run for run in runs if since is None or run["begun"] >= since]
    return Hours(*(sum(run[f"{kind}_seconds"] for run in counted) / 3600 for kind in ("cpu", "gpu")))


def _hours(seconds: float, devices: _Note) -> Hours:
    return Hours(seconds * devices["cpus"] / 3600, seconds * devices["gpus"] / 3600)


def _idle(store: Store, sweep: str, occupied: Hours, since: float | None) -> Hours:
    """What the runs of a sweep had reserved beyond what its points held."""
    held = reserved(store, sweep, since)
    return Hours(max(0.0, held.cpu - occupied.cpu), max(0.0, held.gpu - occupied.gpu))
