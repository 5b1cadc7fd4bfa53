"""Hours, from sums by hand."""

import pytest

from upop_ray import config
from upop_ray.errors import ConfigError
from upop_ray.plan.points import PointPlan
from upop_ray.plan.speed import hours, of_device, stated
from upop_ray.plan.subject import subject_of
from upop_ray.plan.training_step import StepMacs, step_macs

REPLICA = ["replica.workers=8", "replica.gpus_per_worker=1", "replica.cpus_per_worker=4", "batch_size=256"]
POINT = PointPlan("upop", 0.5, 0, search_steps=1000, updates=0, retrain_steps=2000)


def test_hours_of_a_stated_throughput() -> None:
    subject = subject_of(config.load(None, REPLICA))
    # 3000 steps of 32 examples a worker at 100 examples a second: 960 s
    found = hours(subject, [POINT], stated(100))
    assert found.wall == pytest.approx(960 / 3600)
    assert found.gpu == pytest.approx(8 * found.wall) and found.cpu == pytest.approx(32 * found.wall)


def test_finished_points_cost_nothing() -> None:
    subject = subject_of(config.load(None, REPLICA))
    done = PointPlan("upop", 0.5, 0, 1000, 0, 2000, draws=3, done=2)
    assert hours(subject, [done], stated(100)) == hours(subject, [POINT], stated(100))


def test_hours_of_a_devices_peak() -> None:
    # 312 TFLOP/s, half of it; two FLOP a MAC: 1e12 FLOP an example
    speed = of_device("a100", 0.5, "bf16", StepMacs(4 * 10**11, 10**11))
    assert speed.seconds_per_example == pytest.approx(1e12 / 156e12)
    assert "assumption" in speed.known_from and "312" in speed.known_from


def test_retraining_is_faster_by_the_macs_that_are_gone() -> None:
    subject = subject_of(config.load())
    speed = of_device("a100", 0.5, "bf16", StepMacs(10**9, 0))
    search = hours(subject, [PointPlan("upop", 0.5, 0, 1000, 0, 0)], speed).wall
    retrain = hours(subject, [PointPlan("upop", 0.5, 0, 0, 0, 1000)], speed).wall
    assert retrain / search == pytest.approx(1 - 0.5 * subject.removable("macs") / subject.size.macs)


def test_a_device_without_the_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="v100 has no bf16"):
        of_device("v100", 0.5, "bf16", StepMacs(1, 0))


def test_training_passes_forward_once_and_backward_twice() -> None:
    subject = subject_of(config.load())
    assert step_macs(subject) == StepMacs(3 * subject.size.macs, 0)


def test_a_momentum_encoder_and_a_teacher_pass_forward() -> None:
    changes = ["task={name: retrieval, loss: momentum}", "batch_size=256", "distill.weight=1.0"]
    subject = subject_of(config.load(None, changes))
    assert step_macs(subject) == StepMacs(3 * subject.size.macs, 2 * subject.size.macs)


def test_blip_retrieval_matches_three_pairs_an_example() -> None:
    path = config.BUILTIN_EXPERIMENT.with_name("builtin_blip_retrieval.yaml")
    subject = subject_of(config.load(path, ["task.loss=momentum", "task.momentum.queue_size=1280"]))
    macs, paper = step_macs(subject), subject.paper_size
    # the paper counts both encoders once and the matching of three pairs
    assert paper is not None and macs.model / 3 + macs.others == paper.macs
