"""The plan for people."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from upop_ray.plan.points import PointPlan
from upop_ray.plan.subject import Subject
from upop_ray.plan.training_step import step_macs
from upop_ray.pruning.cost import Budget
from upop_ray.terminal import console

if TYPE_CHECKING:
    from upop_ray.plan.command import Plan

_GIGA = 1e9
_BUDGETS: tuple[Budget, ...] = ("params", "macs", "units")


def show(plan: "Plan") -> None:
    """Print the plan."""
    subject = plan.subject
    _dense(subject)
    console.print(_sites_table(subject))
    console.print(_sizes_table(subject))
    console.print()
    _points(plan)
    console.print()
    _memory(subject, plan.memory)
    console.print(
        f"store: {plan.checkpoint / _GIGA:.2f} GB a checkpoint, {plan.store / _GIGA:.1f} GB at most for those of "
        f"{_running(subject)} and all models"
    )
    _hours(plan)
    for line in plan.notes:
        console.print(f"note: {line}")
    console.print("missing:" if plan.missing else "nothing is missing here")
    for line in plan.missing:
        console.print(f"  {line}")


def _dense(subject: Subject) -> None:
    experiment, size, paper = subject.experiment, subject.size, subject.paper_size
    origin = experiment.model.path
    if subject.problem is not None:
        origin = f"published size {experiment.model.size}; {origin} is not at hand"
    console.print(f"dense: {experiment.model.family}, {origin}")
    console.print(f"  {size.parameters:,} parameters, {size.macs:,} MACs ({size.counted})")
    if paper is not None:
        console.print(f"  as the paper counts: {paper.parameters:,} parameters, {paper.macs:,} MACs ({paper.counted})")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _sites_table(subject: Subject) -> Table:
    """Units and what they cost, by tower and kind."""
    table = _table("sites", "units", "parameters a unit", "MACs a unit", "paper's weight")
    sites, costs = subject.sites, [subject.costs(budget) for budget in _BUDGETS]
    for tower, kind in dict.fromkeys((site.tower, site.kind) for site in sites):
        group = [site for site in sites if (site.tower, site.kind) == (tower, kind)]
        shown = [_range([cost[site.name] for site in group]) for cost in costs]
        table.add_row(f"{len(group)} {tower} {kind}", f"{sum(site.units for site in group):,}", *shown)
    return table


def _sizes_table(subject: Subject) -> Table:
    budget = subject.experiment.search.budget
    columns = (("parameters", "params"), ("MACs", "macs"))
    table = _table("ratio", *(name if currency == budget else f"about {name}" for name, currency in columns))
    for ratio in sorted(subject.experiment.sweep.ratios):
        table.add_row(f"{ratio:g}", *(f"{round(value):,}" for value in subject.left(ratio)))
    return table


def _points(plan: "Plan") -> None:
    experiment, points = plan.subject.experiment, plan.points
    if points is None:
        console.print("points: steps are not known without the data")
        return
    console.print(
        f"{len(points)} cells (ratio, method, seed), {sum(point.draws for point in points)} points at most; "
        f"{plan.examples.count:,} examples an epoch ({plan.examples.known_from}), batches of {experiment.batch_size}"
    )
    console.print(_steps_table(points))


def _steps_table(points: Sequence[PointPlan]) -> Table:
    """One line for the cells that differ by their seed alone."""
    table = _table("method", "ratio", "points", "finished", "search steps", "updates", "retraining steps")
    for _, group in groupby(points, key=lambda point: (point.ratio, point.method)):
        same = list(group)
        first, done = same[0], [point.done for point in same]
        finished = "unknown" if None in done else str(sum(count or 0 for count in done))
        steps = (first.search_steps, first.updates, first.retrain_steps)
        cells = [f"{first.ratio:g}", str(sum(point.draws for point in same)), finished, *(f"{n:,}" for n in steps)]
        table.add_row(first.method, *cells)
    return table


def _memory(subject: Subject, memory: Mapping[str, int]) -> None:
    experiment = subject.experiment
    replica, rows = experiment.replica, experiment.batch_size // experiment.replica.workers
    console.print(
        f"a worker: {rows} examples a step, {experiment.precision}, ZeRO {replica.zero_stage} over {replica.workers}; "
        f"{sum(memory.values()) / _GIGA:.2f} GB in the search, without temporaries and libraries"
    )
    table = _table("  memory of a worker", "GB")
    for name, size in memory.items():
        table.add_row(f"  {name}", f"{size / _GIGA:.3f}")
    console.print(table)


def _hours(plan: "Plan") -> None:
    subject, macs = plan.subject, step_macs(plan.subject)
    computed = f"training on an example takes {(macs.model + macs.others) / _GIGA:,.1f} G MACs"
    if plan.speed is None or plan.hours is None:
        how = "" if plan.points is None else "; for hours give --throughput, --device or --measure"
        console.print(computed + how)
        return
    console.print(f"{computed}; speed: {plan.speed.known_from}")
    gpus = f"{plan.hours.gpu:,.1f} GPU-hours, " if subject.experiment.replica.gpus_per_worker else ""
    console.print(
        f"  about {gpus}{plan.hours.cpu:,.1f} CPU-hours, {plan.hours.wall:,.1f} hours on one replica for all points "
        "that are to come,\n  without evaluation, checkpoints, communication and start"
    )


def _running(subject: Subject) -> str:
    at_once = subject.experiment.sweep.max_concurrent or 1
    return "the point that runs" if at_once == 1 else f"the {at_once} points that run at once"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
