"""How long training takes: from a stated throughput, from a device's peak, or from measured steps."""

from collections.abc import Iterable
from dataclasses import dataclass

from upop_ray.config import Experiment
from upop_ray.errors import ConfigError
from upop_ray.plan.points import PointPlan
from upop_ray.plan.subject import Subject
from upop_ray.plan.training_step import StepMacs

#: dense peak in FLOP/s by precision, from NVIDIA's data sheets (SXM boards; fp32 without tensor cores, as torch
#: computes it unless told otherwise)
DEVICES = {
    "v100": {"fp32": 15.7e12},
    "a100": {"fp32": 19.5e12, "bf16": 312e12},
    "h100": {"fp32": 67e12, "bf16": 989e12},
}
#: share of the peak that training is taken to reach, unless stated
UTILISATION = 0.35
_FLOP = 2
_HOUR = 3600.0


@dataclass(frozen=True)
class Speed:
    """Seconds of a worker for an example in search and in the retraining of the dense model, and for an update.

    :param shrinks: whether retraining gets faster with the MACs that are gone
    :param known_from: in words
    """

    seconds_per_example: float
    seconds_per_update: float
    shrinks: bool
    known_from: str


@dataclass(frozen=True)
class Hours:
    """What all points together take that are still to be computed; without evaluation, checkpoints and start."""

    wall: float
    gpu: float
    cpu: float


def stated(examples_per_second: float) -> Speed:
    """Speed of a throughput that the user states."""
    return Speed(1 / examples_per_second, 0.0, False, f"{examples_per_second:g} examples/s of a worker, as stated")


def of_device(name: str, utilisation: float, precision: str, macs: StepMacs) -> Speed:
    """Speed of a device at a share of its peak.

    :raises ConfigError: the device does not compute in that precision
    """
    peaks = DEVICES[name]
    if precision not in peaks:
        raise ConfigError("precision", f"{name} has no {precision}", f"use {' or '.join(peaks)}, or another --device")
    flop = _FLOP * (macs.model + macs.others)
    words = f"{utilisation:.0%} of the {peaks[precision] / 1e12:g} TFLOP/s of {name} in {precision}, an assumption"
    return Speed(flop / (utilisation * peaks[precision]), 0.0, True, words)


def hours(subject: Subject, points: Iterable[PointPlan], speed: Speed) -> Hours:
    """Time of the points that the store does not have, one after the other on one replica."""
    experiment = subject.experiment
    seconds = sum((point.draws - (point.done or 0)) * _seconds(subject, point, speed) for point in points)
    wall, replica = seconds / _HOUR, experiment.replica
    return Hours(
        wall, wall * replica.workers * replica.gpus_per_worker, wall * replica.workers * replica.cpus_per_worker
    )


def _seconds(subject: Subject, point: PointPlan, speed: Speed) -> float:
    step = speed.seconds_per_example * _rows(subject.experiment)
    left = subject.left(point.ratio)[1] / subject.size.macs if speed.shrinks else 1.0
    return point.search_steps * step + point.updates * speed.seconds_per_update + point.retrain_steps * step * left


def _rows(experiment: Experiment) -> int:
    return experiment.batch_size // experiment.replica.workers
