"""Tables of a report's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from upop_ray.config import Price
from upop_ray.reporting.blocks import Cell, Table, cells
from upop_ray.reporting.candidates import Candidate
from upop_ray.reporting.facts import DROPS, title_of, with_spread
from upop_ray.reporting.latencies import how
from upop_ray.reporting.ledger import PARTS, Hours, Ledger
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.recommend import Limits, recommend
from upop_ray.reporting.sweeps import SweepResults, quantity

#: the column that tells several sweeps apart
_SWEEP = ("sweep",)
_REASONS = {"stopped": "stopped early by its validation metric", "proposed": "begun, or waiting"}


def choices_table(offers: Sequence[Candidate]) -> Table:
    """The smallest model within each of some drops below the dense one on validation."""
    numbers = ("parameters gone", "MACs gone", "drop on validation", "test", "test, to dense", "seeds")
    columns = ("at most below dense", "smallest model", *numbers, "point")
    return Table(columns, [_choice(offers, drop) for drop in DROPS], numbers)


def _choice(offers: Sequence[Candidate], drop: float) -> list[Cell]:
    found = recommend(offers, Limits(drop=drop), {}).chosen
    if found is None:
        return cells([f"{drop:g}", "none", *[""] * 7])
    test, seeds = found.score("test"), len(found.rows)
    name = title_of(found) if len({offer.sweep for offer in offers}) == 1 else f"{found.sweep}, {title_of(found)}"
    return cells(
        [
            f"{drop:g}",
            name,
            f"{found.removed('parameters'):.1%}",
            f"{found.removed('macs'):.1%}",
            with_spread(*found.drop, seeds),
            with_spread(*test, seeds),
            f"{test[0] - found.dense('test'):+.2f}",
            seeds,
            Cell(found.taken.hash, code=True),
        ]
    )


def points_table(sweeps: Sequence[SweepResults], ledgers: Mapping[str, Ledger]) -> Table:
    """All finished points; the dense model of each sweep first."""
    spent = {point: hours for ledger in ledgers.values() for point, hours in ledger.by_point.items()}
    devices = ("gpu", "cpu") if any(hours.gpu for hours in spent.values()) else ("cpu",)
    hours_of = tuple(f"{device.upper()}-hours" for device in devices)
    headline = " or ".join(dict.fromkeys(sweep.measure[0] for sweep in sweeps))
    scores = (f"validation {headline}", f"test {headline}", "to dense", "before retraining")
    numbers = ("ratio", "seed", *scores, "parameters", "gone", "MACs", "MACs gone", "seconds", *hours_of)
    shown_drawn = any(row.drawn for sweep in sweeps for row in sweep.finished)
    columns = [*_SWEEP[: len(sweeps) - 1], "method", *(["drawn"] if shown_drawn else []), *numbers, "point"]
    rows = []
    for sweep in sweeps:
        for row in (None, *sweep.finished):
            method, drawn, *rest, point = _dense_cells(sweep) if row is None else _point_cells(row)
            hours = [_hours(None if row is None else getattr(spent[row.hash], device)) for device in devices]
            rows.append([*_named(sweep, sweeps), method, *([drawn] if shown_drawn else []), *rest, *hours, point])
    return Table(columns, rows, numbers, long=("drawn",))


def _named(sweep: SweepResults, sweeps: Sequence[SweepResults]) -> list[Cell]:
    """The column that tells sweeps apart, where there are several."""
    return [Cell(sweep.name)] if len(sweeps) > 1 else []


def _dense_cells(sweep: SweepResults) -> list[Cell]:
    row = sweep.finished[0]
    assert row.manifest is not None
    dense = row.manifest["dense"]
    sizes = [_count(dense["parameters"]), Cell(""), _count(dense["macs"]), Cell("")]
    scores = [f"{row.dense_metric(split):.2f}" for split in ("validation", "test")]
    return cells(["dense", "", "", "", *scores, "", "", *sizes, "", ""])


def _point_cells(row: PointRow) -> list[Cell]:
    manifest = row.manifest
    assert manifest is not None
    drawn = ", ".join(f"{name.split('.')[-1]}={_short(value)}" for name, value in row.drawn.items())
    gone = manifest["compression"]
    return cells(
        [
            row.method,
            drawn,
            f"{row.ratio:g}",
            row.seed,
            *(f"{row.metric(split):.2f}" for split in ("validation", "test")),
            Cell(
                f"{row.metric('test') - row.dense_metric('test'):+.2f}", row.metric("test") - row.dense_metric("test")
            ),
            f"{manifest['metrics']['before_retraining'][manifest['headline']]:.2f}",
            _count(manifest["parameters"]),
            Cell(f"{gone['parameters']:.1%}", gone["parameters"]),
            _count(manifest["macs"]),
            Cell(f"{gone['macs']:.1%}", gone["macs"]),
            f"{sum(manifest['seconds'].values()):.0f}",
            Cell(row.hash, code=True),
        ]
    )


def failures_table(sweeps: Sequence[SweepResults]) -> Table:
    """Points that are not finished, with the reason."""
    columns = (*_SWEEP[: len(sweeps) - 1], "point", "state", "reason", "hash")
    rows = [
        cells(
            [
                *_named(sweep, sweeps),
                row.label,
                row.state,
                row.cause or _REASONS.get(row.state, ""),
                Cell(row.hash, code=True),
            ]
        )
        for sweep in sweeps
        for row in sweep.rows
        if not row.manifest
    ]
    return Table(columns, rows, long=("reason",))


def others_table(sweeps: Sequence[SweepResults]) -> Table:
    """Points that a sweep computed when it had other settings."""
    columns = (*_SWEEP[: len(sweeps) - 1], "point", "settings that differ", "hash")
    rows = [
        cells([*_named(sweep, sweeps), row.label, row.cause, Cell(row.hash, code=True)])
        for sweep in sweeps
        for row in sweep.others
    ]
    return Table(columns, rows, long=columns[-2:-1])


def latency_table(rows: Sequence[PointRow], measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was measured of points, by their hashes."""
    numbers = ("milliseconds", "dense")
    lines = [
        [
            row.label,
            how(measured[row.hash]),
            *(_milliseconds(measured[row.hash]["headline"][name]) for name in ("milliseconds", "dense_milliseconds")),
            "; ".join(measured[row.hash]["verdicts"]),
        ]
        for row in rows
        if row.hash in measured
    ]
    columns = ("point", "case", *numbers, "verdicts")
    return Table(columns, [cells(line) for line in lines], numbers, long=("case", "verdicts"))


def ledger_table(ledger: Ledger, price: Price) -> Table:
    """Hours of each point by what they went into: of GPUs where there are any, else of CPUs; then the sums of both."""
    on_gpus = ledger.spent.gpu or ledger.saved.gpu
    units = ["GPU-hours", "CPU-hours"] if on_gpus else ["CPU-hours"]
    numbers = [*PARTS, "saved", *units, *(["price"] if price != Price() else [])]

    def line(name: str, parts: Sequence[Hours], saved: Hours, spent: Hours) -> list[Cell]:
        hours = [each.gpu if on_gpus else each.cpu for each in (*parts, saved)]
        hours += [spent.gpu, spent.cpu] if on_gpus else [spent.cpu]
        return [Cell(name), *map(_hours, hours), *([Cell(f"{spent.priced(price):.2f}")] if price != Price() else [])]

    rows = [
        line(point.row.label, [point.parts[part] for part in PARTS], point.saved, point.spent)
        for point in ledger.points
    ]
    rows.append(line("idle", [Hours()] * len(PARTS), Hours(), ledger.idle))
    rows.append(line("all", [ledger.part(part) for part in PARTS], ledger.saved, ledger.spent))
    return Table(["point", *numbers], rows, numbers)


def environment_table(sweeps: Sequence[SweepResults]) -> Table:
    """Versions and replica of each sweep, as its experiment.yaml says."""
    packages = list(dict.fromkeys(package for sweep in sweeps for package in sweep.versions))
    replica = ["workers", "cpus_per_worker", "gpus_per_worker", "zero_stage", "backend"]
    rows = [[package, *(sweep.versions.get(package, "") for sweep in sweeps)] for package in packages]
    rows += [["precision", *(sweep.experiment.get("precision", "") for sweep in sweeps)]]
    rows += [
        [f"replica.{name}", *(sweep.experiment.get("replica", {}).get(name, "") for sweep in sweeps)]
        for name in replica
    ]
    return Table(["", *(sweep.name for sweep in sweeps)], [cells(row) for row in rows])


def _hours(value: float | None) -> Cell:
    return Cell(f"{value:.3g}" if value else "", value)


def _count(value: int) -> Cell:
    return Cell(quantity(value), value)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
