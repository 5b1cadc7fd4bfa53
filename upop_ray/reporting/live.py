"""A sweep at one moment, for the terminal: what runs, the best of each ratio, hours, and what went wrong."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from upop_ray.config import Price
from upop_ray.reporting.costs import hours_text
from upop_ray.reporting.ledger import Hours
from upop_ray.reporting.points import PointRow, best_draws, spread
from upop_ray.reporting.progress import Running, SweepProgress

#: lines of each kind: everything together has to fit into a terminal
_RUNNING, _RATIOS, _WRONG = 8, 8, 3
#: seconds after which a run that has said nothing may be dead
SILENCE = 60.0


def live_table(sweep: str, rows: Sequence[PointRow], progress: SweepProgress, now: float) -> RenderableType:
    """Everything that there is to say at this moment.

    :param now: seconds of the epoch
    """
    parts: list[RenderableType] = [_headline(sweep, rows, progress, now), _line(hours_line(rows, progress), "dim")]
    if progress.running:
        parts += [Text(), _running_table(progress.running)]
    if progress.waiting:
        parts.append(_line(progress.waiting, "yellow"))
    if any(row.manifest for row in rows):
        parts += [Text(), best_table(rows)]
    wrong = wrong_lines(rows, progress)
    if wrong:
        parts += [Text(), *(_line(line, "red") for line in wrong[-_WRONG:])]
    return Group(*parts)


def state_line(sweep: str, rows: Sequence[PointRow], progress: SweepProgress, now: float) -> str:
    """How many points are in which state."""
    counts = Counter(row.state for row in rows)
    parts = [f"{counts['finished']} of {progress.total} finished"]
    waiting = progress.total - sum(counts[state] for state in ("finished", "failed", "stopped")) - len(progress.running)
    numbers = {"running": len(progress.running), "waiting": max(0, waiting)}
    numbers |= {"stopped early": counts["stopped"], "failed": counts["failed"]}
    parts += [f"{number} {state}" for state, number in numbers.items() if number]
    if progress.state != "running":
        parts.append(progress.state)
    elif now - progress.updated > SILENCE:
        parts.append(f"nothing heard for {_duration(now - progress.updated)}: its driver may have died")
    return f"{sweep}: {', '.join(parts)}"


def hours_line(rows: Sequence[PointRow], progress: SweepProgress) -> str:
    """Hours spent and, by what finished points of the same method took, still to come."""
    spent = f"spent {hours_text(progress.hours, Price())}" if progress.hours != Hours() else ""
    seconds = _seconds_to_come(rows, progress)
    if not seconds or progress.state != "running":
        return spent
    manifest = next(row.manifest for row in rows if row.manifest)
    replica, hours = manifest["replica"], seconds * manifest["workers"] / 3600
    ahead = Hours(hours * replica["cpus_per_worker"], hours * replica["gpus_per_worker"])
    left = f"about {hours_text(ahead, Price())} to come"
    if progress.running:
        left += f", {_duration(seconds / len(progress.running))} as fast as now"
    return ", ".join(filter(None, (spent, left)))


def best_table(rows: Sequence[PointRow]) -> Table:
    """Validation of each method (mean over seeds of the best draws), a line for each ratio; the best one is bold."""
    best = best_draws(rows)
    first = best[0]
    assert first.manifest is not None
    methods = sorted({row.method for row in best})
    table = Table(box=None, pad_edge=False, header_style="dim")
    headline = first.manifest["headline"]
    table.add_column(f"validation {headline} (dense {first.dense_metric('validation'):.2f}), ratio", no_wrap=True)
    for method in methods:
        table.add_column(method, justify="right", no_wrap=True)
    ratios = sorted({row.ratio for row in best})
    for ratio in ratios[:_RATIOS]:
        found = {method: _validation(best, method, ratio) for method in methods}
        highest = max(value for value in found.values() if value is not None)
        table.add_row(f"{ratio:g}", *(_score(value, highest) for value in found.values()))
    if len(ratios) > _RATIOS:
        table.add_row(f"and {len(ratios) - _RATIOS} more", *("" for _ in methods))
    return table


def wrong_lines(rows: Sequence[PointRow], progress: SweepProgress) -> list[str]:
    """What went wrong: notes of points that go on, then those that failed."""
    failed = [f"failed {row.label}: {' '.join(row.cause.split())}" for row in rows if row.state == "failed"]
    return [*progress.notes, *failed]


def running_line(point: Running) -> str:
    """A point that is being computed, in a line without columns."""
    loss = "" if point.loss is None else f" loss {point.loss:.3f}"
    return f"{point.label} {point.phase} {_steps(point)}{loss}"


def _headline(sweep: str, rows: Sequence[PointRow], progress: SweepProgress, now: float) -> RenderableType:
    finished = sum(row.state == "finished" for row in rows)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    bar = ProgressBar(total=max(1, progress.total), completed=finished, width=20)
    grid.add_row(bar, _line(state_line(sweep, rows, progress, now), "bold"))
    return grid


def _running_table(running: Sequence[Running]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    # a narrow terminal takes from the names alone
    table.add_column("running", overflow="ellipsis")
    table.add_column("phase", no_wrap=True, min_width=8)
    for name, width in (("step", 9), ("loss", 6), ("left", 6)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for point in running[:_RUNNING]:
        loss = "" if point.loss is None else f"{point.loss:.3f}"
        table.add_row(point.label, point.phase, _steps(point), loss, _duration(point.left))
    if len(running) > _RUNNING:
        table.add_row(f"and {len(running) - _RUNNING} more")
    return table


def _steps(point: Running) -> str:
    return f"{point.step}/{point.steps}" if point.steps else ""


def _validation(rows: Sequence[PointRow], method: str, ratio: float) -> float | None:
    values = [row.metric("validation") for row in rows if (row.method, row.ratio) == (method, ratio)]
    return spread(values)[0] if values else None


def _score(value: float | None, highest: float) -> Text:
    if value is None:
        return Text("-", "dim")
    return Text(f"{value:.2f}", "bold" if value == highest else "")


def _seconds_to_come(rows: Sequence[PointRow], progress: SweepProgress) -> float:
    """Seconds of a replica that unfinished points will take; 0 when there is nothing to go by."""
    taken: dict[str, list[float]] = {}
    for row in rows:
        if row.manifest:
            taken.setdefault(row.method, []).append(sum(row.manifest["seconds"].values()))
    if not taken:
        return 0.0
    usual = mean(mean(seconds) for seconds in taken.values())
    # those that run are half done on average
    running = {point.label for point in progress.running}
    proposed = [row for row in rows if row.state == "proposed"]
    known = sum(
        (mean(taken[row.method]) if row.method in taken else usual) * (0.5 if row.label in running else 1.0)
        for row in proposed
    )
    return known + usual * max(0, progress.total - len(rows))


def _duration(seconds: float | None) -> str:
    """A duration for people: ``48 s``, ``12 min``, ``3.5 h``."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _line(text: str, style: str) -> Text:
    """One line of the terminal, cut where it is too long."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")
