"""Memory of a worker, from sums by hand (Rajbhandari et al., 2020, figure 1, for bf16)."""

from typing import Any

import pytest

from upop_ray import config
from upop_ray.plan.memory import checkpoint_bytes, engine_memory, queue_bytes, store_bytes, worker_memory
from upop_ray.plan.subject import subject_of

PARAMETERS = 1_000_000


def per_parameter(precision: str, stage: int, **parts: Any) -> dict[str, float]:
    replica = {"workers": 4, "zero_stage": stage}
    experiment = config.parse({"precision": precision, "replica": replica, **parts})
    return {name: size / PARAMETERS for name, size in engine_memory(PARAMETERS, experiment).items()}


@pytest.mark.parametrize(
    ("precision", "stage", "weights", "gradients", "optimizer", "others"),
    [
        ("fp32", 0, 4, 4, 8, {}),
        ("fp32", 1, 4, 4, 2, {"fp32 masters": 1, "gradient bucket": 4}),
        ("fp32", 2, 4, 1, 2, {"fp32 masters": 1, "gradient bucket": 4}),
        ("fp32", 3, 1, 1, 2, {"fp32 masters": 1, "gradient bucket": 4}),
        ("bf16", 0, 4, 4, 8, {"bf16 copies of weights": 2}),
        ("bf16", 1, 2, 2, 2, {"fp32 masters": 1, "gradient bucket": 2}),
        ("bf16", 2, 2, 0.5, 2, {"fp32 masters": 1, "gradient bucket": 2}),
        ("bf16", 3, 0.5, 0.5, 2, {"fp32 masters": 1, "gradient bucket": 2}),
    ],
)
def test_bytes_of_a_parameter_on_one_of_four_workers(
    precision: str, stage: int, weights: float, gradients: float, optimizer: float, others: dict[str, float]
) -> None:
    expected = {"weights": weights, "gradients": gradients, "optimizer": optimizer, **others}
    assert per_parameter(precision, stage) == expected


@pytest.mark.parametrize(("optimizer", "numbers"), [({"name": "sgd"}, 0), ({"name": "sgd", "momentum": 0.9}, 1)])
def test_the_optimizer_keeps_what_its_kind_keeps(optimizer: dict[str, Any], numbers: int) -> None:
    assert per_parameter("fp32", 0, optimizer=optimizer)["optimizer"] == 4 * numbers


def test_the_bucket_of_a_gpu_is_deepspeeds_own_or_as_set() -> None:
    replica = {"zero_stage": 2, "gpus_per_worker": 1}
    assert engine_memory(1, config.parse({"replica": replica}))["gradient bucket"] == 4 * 500_000_000
    replica["deepspeed"] = {"zero_optimization": {"reduce_bucket_size": 1000}}
    assert engine_memory(1, config.parse({"replica": replica}))["gradient bucket"] == 4 * 1000


def test_a_momentum_encoder_its_queue_and_a_teacher_are_whole_on_each_worker() -> None:
    task = "task={name: retrieval, loss: momentum, momentum: {queue_size: 1280}}"
    subject = subject_of(config.load(None, [task, "distill.weight=1.0", "replica.workers=2"]))
    memory = worker_memory(subject)
    # features of the built-in CLIP are 128 wide
    assert memory["queue"] == 1280 * (2 * 128 * 4 + 8) == queue_bytes(subject.experiment.task.momentum, 128)
    assert memory["momentum encoder"] == memory["teacher"] == 4 * 1_780_097
    # fp32: weights, two numbers of AdamW, the encoder and its queue
    assert checkpoint_bytes(subject) == 4 * 1_780_097 * 4 + memory["queue"]


def test_the_store_takes_three_checkpoints_of_a_running_point_and_every_model() -> None:
    subject = subject_of(config.load())
    checkpoint = 4 * 1_780_097 * 3
    assert checkpoint_bytes(subject) == checkpoint
    # 4 + 3 layers of width 128: attention 32 * 4 * (3 * 129 + 128), MLP 512 * 257
    left = 1_780_097 - 0.5 * 7 * (32 * 4 * (3 * 129 + 128) + 512 * 257)
    assert store_bytes(subject, 1, {0.5: 2}) == 3 * checkpoint + 2 * 4 * left
