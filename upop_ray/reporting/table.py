"""The points of a sweep as a table for the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from upop_ray.reporting.points import PointRow, best_draws, spread


def points_table(rows: Sequence[PointRow]) -> Table:
    """One line a finished point, the dense model first."""
    done = [row for row in rows if row.manifest]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    if any(row.drawn for row in rows):
        table.add_column("drawn")
    headline = done[0].manifest["headline"] if done and done[0].manifest else "metric"
    for name in ("ratio", "achieved", "params", "MACs", f"val {headline}", f"test {headline}", "to dense", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    if done and done[0].manifest:
        dense = done[0].manifest["dense"]
        sizes = [_millions(dense["parameters"]), _millions(dense["macs"])]
        metrics = [f"{dense['validation'][headline]:.2f}", f"{dense['test'][headline]:.2f}"]
        table.add_row("dense", *([""] if any(row.drawn for row in rows) else []), "", "", *sizes, *metrics, "", "")
    for row in done:
        table.add_row(*_cells(row, any(other.drawn for other in rows)))
    return table


def seeds_table(rows: Sequence[PointRow]) -> Table | None:
    """Mean and deviation over seeds of each method and ratio; None when there is one seed."""
    best = best_draws(rows)
    if len({row.seed for row in best}) < 2:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method")
    for name in ("ratio", "seeds", "validation", "test", "before retraining"):
        table.add_column(name, justify="right")
    for method, ratio in sorted({(row.method, row.ratio) for row in best}):
        same = [row for row in best if (row.method, row.ratio) == (method, ratio)]
        before = [float(r.manifest["metrics"]["before_retraining"][r.manifest["headline"]]) for r in same if r.manifest]
        shown = [spread([row.metric(split) for row in same]) for split in ("validation", "test")] + [spread(before)]
        table.add_row(
            method, f"{ratio:g}", str(len(same)), *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in shown)
        )
    return table


def unfinished_lines(rows: Sequence[PointRow]) -> list[str]:
    """One line for each point that failed or was stopped early, with its cause."""
    reasons = {"failed": "failed: {cause}", "stopped": "stopped early by its validation metric"}
    return [
        f"{row.method} {row.ratio:g} seed {row.seed}: {reasons[row.state].format(cause=row.cause)}"
        for row in rows
        if row.state in reasons
    ]


def warning_lines(rows: Sequence[PointRow]) -> list[str]:
    """One line for each warning in the manifests, those of older points have none."""
    return [
        f"warning: {row.method} {row.ratio:g} seed {row.seed}: {line}"
        for row in rows
        for line in (row.manifest or {}).get("warnings", ())
    ]


def _cells(row: PointRow, with_drawn: bool) -> list[str | Text]:
    manifest = row.manifest
    assert manifest is not None
    # no markup: a drawn path may have brackets
    drawn = [Text(drawn_text(row.drawn))] if with_drawn else []
    difference = row.metric("test") - row.dense_metric("test")
    return [
        f"{row.method} seed {row.seed}",
        *drawn,
        f"{row.ratio:g}",
        f"{manifest['budget']['achieved']:.4f}",
        _millions(manifest["parameters"]),
        _millions(manifest["macs"]),
        f"{row.metric('validation'):.2f}",
        f"{row.metric('test'):.2f}",
        f"{difference:+.2f}",
        f"{sum(manifest['seconds'].values()):.0f}",
    ]


def drawn_text(drawn: Mapping[str, object]) -> str:
    """Drawn settings in a cell: ``learning_rate=0.00125 score=signed``."""
    return " ".join(f"{name.split('.')[-1]}={_short(value)}" for name, value in drawn.items())


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f} M"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
