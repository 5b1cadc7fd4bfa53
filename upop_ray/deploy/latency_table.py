"""A latency measurement for people."""

from rich.console import Console
from rich.table import Table

from upop_ray.deploy.latency import Latency, Row, Spread, verdicts


def show(found: Latency, console: Console) -> None:
    """Print the table, what could not be measured, and what it means."""
    console.print(_place(found))
    console.print(_sizes(found))
    console.print()
    console.print(_table(found))
    for row in found.rows:
        if row.problem:
            case = f"{row.case.backend} {row.case.precision} batch {row.case.batch}"
            console.print(f"not measured: {case}: {row.problem}")
    console.print()
    for line in verdicts(found):
        console.print(line)


def _place(found: Latency) -> str:
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    before, after = found.load
    torch = found.versions["torch"]
    return f"{found.device}; {threads} a call; load {before:.1f} at the start, {after:.1f} at the end; torch {torch}"


def _sizes(found: Latency) -> str:
    parts = []
    for name, counts in (("parameters", found.parameters), ("MACs", found.macs)):
        dense = f"{counts['dense']:,} -> " if "dense" in counts else ""
        parts.append(f"{dense}{counts['sliced']:,} {name}")
    return ", ".join(parts)


def _table(found: Latency) -> Table:
    compared = "dense" in found.macs
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("backend", "precision"):
        table.add_column(name, no_wrap=True)
    names = ("dense ms (p10 to p90)", "sliced ms (p10 to p90)", "speed-up (95%)") if compared else ("ms (p10 to p90)",)
    for name in ("batch", *names, "rounds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        if row.sliced is not None:
            table.add_row(*_cells(row, row.sliced))
    return table


def _cells(row: Row, sliced: Spread) -> list[str]:
    times = [_spread(sliced)]
    if row.dense is not None and row.speedup is not None:
        found = row.speedup
        times = [_spread(row.dense), *times, f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"]
    return [row.case.backend, row.case.precision, str(row.case.batch), *times, str(row.rounds)]


def _spread(found: Spread) -> str:
    return f"{found.median:.2f} ({found.p10:.2f} to {found.p90:.2f})"
