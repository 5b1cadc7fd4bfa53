"""Where a point stands: on the curves of the sweeps that hold it, in cost, and in latency."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upop_ray.deploy.markdown import table
from upop_ray.deploy.subject import Place
from upop_ray.reporting.ledger import read_ledger
from upop_ray.reporting.points import PointRow, best_draws, read_points
from upop_ray.store import Store


@dataclass(frozen=True)
class Standing:
    """What a card says of a point's surroundings, in Markdown.

    :param curves: a table for each sweep that holds the point
    :param cost: empty where no sweep holds it
    :param latency: empty where none was measured
    """

    curves: tuple[str, ...]
    cost: str
    latency: str


def standing_of(place: Place) -> Standing:
    """Read the sweeps of the point's store, and its latency."""
    curves, cost = [], ""
    for sweep in place.store.list("sweeps"):
        rows = read_points(place.store, sweep)
        own = next((row for row in rows if row.hash == place.hash and row.manifest), None)
        if own is not None:
            curves.append(_curve(sweep, own, rows))
            cost = cost or _cost(place.store, sweep, own)
    path = place.paths.latency
    latency = _latency(place.store.read_json(path)) if place.store.exists(path) else ""
    return Standing(tuple(curves), cost, latency)


def _curve(sweep: str, own: PointRow, rows: Sequence[PointRow]) -> str:
    """The neighbours of a point: below and above it by the same method, and other methods at its ratio."""
    shown = [row for row in best_draws(rows) if row.seed == own.seed and row.hash != own.hash]
    same = sorted((row for row in shown if row.method == own.method), key=lambda row: row.ratio)
    below = [row for row in same if row.ratio < own.ratio][-1:]
    above = [row for row in same if row.ratio > own.ratio][:1]
    others = [row for row in shown if row.ratio == own.ratio and row.method != own.method]
    assert own.manifest is not None
    headline, dense = own.manifest["headline"], own.manifest["dense"]
    head = (f"sweep `{sweep}`", "ratio", "parameters", "MACs", f"validation {headline}", f"test {headline}")
    lines = [_line(("dense", "0"), dense, own.dense_metric)]
    for row in (*below, own, *above, *others):
        assert row.manifest is not None
        name = f"**{row.method}, this model**" if row is own else row.method
        lines.append(_line((name, f"{row.ratio:g}"), row.manifest, row.metric))
    return table(head, lines)


def _line(names: tuple[str, str], sizes: Mapping[str, Any], metric: Callable[[str], float]) -> tuple[str, ...]:
    counts = (f"{sizes[name]:,}" for name in ("parameters", "macs"))
    return (*names, *counts, *(f"{metric(split):.2f}" for split in ("validation", "test")))


def _cost(store: Store, sweep: str, own: PointRow) -> str:
    """Hours by the ledger of a sweep, spent by it or by others before it."""
    (point,) = read_ledger(store, sweep, [own]).points
    hours = point.spent + point.saved
    return f"Devices were held for {hours.cpu:.3g} CPU-hours and {hours.gpu:.3g} GPU-hours, lost work included."


def _latency(measured: Mapping[str, Any]) -> str:
    """What ``upop_ray.bench`` left, as :func:`upop_ray.deploy.latency.as_json` writes it."""
    rows = [_times(row) for row in measured["rows"] if row["sliced"] is not None]
    head = ("backend", "precision", "batch", "dense, ms", "this model, ms", "speed-up")
    threads = "1 thread" if measured["threads"] == 1 else f"{measured['threads']} threads"
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    lines = [f"Median of a call on {measured['device']}, {threads}; {versions}.", table(head, rows)]
    return "\n\n".join([*lines, "\n".join(f"* {verdict}" for verdict in measured["verdicts"])]).rstrip()


def _times(row: Mapping[str, Any]) -> tuple[str, ...]:
    dense, faster = row["dense"], row["speedup"]
    times = ("" if dense is None else f"{dense['median']:.2f}", f"{row['sliced']['median']:.2f}")
    return row["backend"], row["precision"], str(row["batch"]), *times, f"{faster['median']:.2f}" if faster else ""
