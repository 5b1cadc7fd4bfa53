"""The command: options in, a plan out."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.distributed.plan import cells, check_space
from upop_ray.plan import tables
from upop_ray.plan.measure import measured
from upop_ray.plan.memory import checkpoint_bytes, store_bytes, worker_memory
from upop_ray.plan.missing import missing, notes
from upop_ray.plan.points import Examples, PointPlan, done_of, examples_of, point_plan
from upop_ray.plan.speed import DEVICES, UTILISATION, Hours, Speed, hours, of_device, stated
from upop_ray.plan.subject import Subject, subject_of
from upop_ray.plan.training_step import step_macs
from upop_ray.store.patience import at_most
from upop_ray.terminal import split_arguments
from upop_ray.tracking import quieten
from upop_ray.training.budget import check_ratios

_HELP = """\
Say what a sweep would compute and cost, before it runs: points and their steps, sizes, memory of a worker, hours,
and what is missing. Nothing is started: no Ray, no training (but for the few steps of --measure)."""
_EPILOG = """\
examples:
  python -m upop_ray.plan experiments/blip_nlvr2.yaml --device a100
  python -m upop_ray.plan experiments/builtin_clip.yaml --measure
  python -m upop_ray.plan experiments/builtin_clip.yaml search.budget=macs --throughput 300"""

#: seconds that a plan waits for a store which does not answer
_OUTAGE = 2.0


@dataclass(frozen=True)
class Plan:
    """Everything that is said of an experiment.

    :param points: a cell each; None where the number of examples is not known
    :param speed: None where no option says how fast training is
    """

    subject: Subject
    examples: Examples
    points: list[PointPlan] | None
    memory: Mapping[str, int]
    checkpoint: int
    store: int
    speed: Speed | None
    hours: Hours | None
    missing: list[str]
    notes: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code, which is 0 also where something is missing."""
    options = _parser().parse_intermixed_args(arguments)
    quieten()
    experiment = config.load(*split_arguments(options.experiment, options.overrides))
    with at_most(_OUTAGE):
        found = plan(experiment, options)
    if options.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        tables.show(found)
    return 0


def plan(experiment: Experiment, options: argparse.Namespace) -> Plan:
    """Plan an experiment.

    :raises CheckpointError: the checkpoint is not at hand, and no published size is named
    :raises ConfigError: a setting cannot be used
    :raises BudgetError: the floors leave too little to remove
    """
    check_space(experiment)
    subject = subject_of(experiment)
    check_ratios(experiment, subject.spec, subject.shape)
    examples = examples_of(experiment, subject.problem is None)
    points = _points(subject, examples)
    counts = _to_compute(points or ())
    at_once = min(experiment.sweep.max_concurrent or 1, max(1, sum(counts.values())))
    needed = store_bytes(subject, at_once, counts)
    speed = _speed(subject, options)
    return Plan(
        subject,
        examples,
        points,
        worker_memory(subject),
        checkpoint_bytes(subject),
        needed,
        speed,
        hours(subject, points, speed) if speed and points else None,
        missing(subject, examples, needed),
        notes(experiment, examples),
    )


def as_json(found: Plan) -> dict[str, Any]:
    """The plan as plain values; sizes in bytes."""
    subject, experiment = found.subject, found.subject.experiment
    size, paper = subject.size, subject.paper_size
    macs = step_macs(subject)
    return {
        "experiment": experiment.name,
        "model": {"family": experiment.model.family, "path": experiment.model.path, "size": experiment.model.size},
        "dense": asdict(size),
        "dense_as_the_paper_counts": None if paper is None else asdict(paper),
        "removable": {budget: subject.removable(budget) for budget in ("params", "macs")},
        "ratios": {f"{ratio:g}": _left(subject, ratio) for ratio in sorted(experiment.sweep.ratios)},
        "examples": asdict(found.examples),
        "points": None if found.points is None else [asdict(point) for point in found.points],
        "batch_of_a_worker": experiment.batch_size // experiment.replica.workers,
        "memory_of_a_worker": dict(found.memory) | {"total": sum(found.memory.values())},
        "macs_of_training_on_an_example": macs.model + macs.others,
        "checkpoint": found.checkpoint,
        "store": found.store,
        "speed": None if found.speed is None else asdict(found.speed),
        "hours": None if found.hours is None else asdict(found.hours),
        "missing": found.missing,
        "notes": found.notes,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.plan",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", nargs="?", help="experiment YAML (default: the built-in CLIP)")
    parser.add_argument("overrides", nargs="*", metavar="setting=value", help="for example model.size=base")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--throughput", type=_positive, metavar="N", help="training examples a second of one worker")
    speed.add_argument("--device", choices=sorted(DEVICES), help="estimate the hours from the peak of this GPU")
    speed.add_argument("--measure", action="store_true", help="time a few steps on this machine (up to a minute)")
    parser.add_argument(
        "--utilisation",
        type=_share,
        default=UTILISATION,
        metavar="SHARE",
        help="share of the peak that training reaches (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be in (0, 1], got {text}")
    return value


def _points(subject: Subject, examples: Examples) -> list[PointPlan] | None:
    experiment, count = subject.experiment, examples.count
    if count is None:
        return None
    at_hand = subject.problem is None and examples.known_from == "data"
    done = done_of(experiment) if at_hand else {}
    return [replace(point_plan(experiment, cell, count), done=done.get(cell)) for cell in cells(experiment)]


def _to_compute(points: Sequence[PointPlan]) -> dict[float, int]:
    """Ratio -> points that the store does not have."""
    counts = dict.fromkeys((point.ratio for point in points), 0)
    for point in points:
        counts[point.ratio] += point.draws - (point.done or 0)
    return counts


def _speed(subject: Subject, options: argparse.Namespace) -> Speed | None:
    if options.throughput is not None:
        return stated(options.throughput)
    if options.device is not None:
        precision = subject.experiment.precision
        return of_device(options.device, options.utilisation, precision, step_macs(subject))
    return measured(subject) if options.measure else None


def _left(subject: Subject, ratio: float) -> dict[str, int]:
    parameters, macs = subject.left(ratio)
    return {"parameters": round(parameters), "macs": round(macs)}
