"""Distillation: the divergence against torch's own, and a teacher that is the student teaches nothing."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.tiny import tiny_experiment
from tests.training.test_point import manifest_of
from upop_ray.config import Distillation
from upop_ray.training.engine import EngineSettings, LocalEngine
from upop_ray.training.objective import Objective, divergence
from upop_ray.training.prepared import prepare


def test_the_divergence_is_torchs_scaled_by_the_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 7, generator=generator) for _ in range(2))
    expected = functional.kl_div(
        functional.log_softmax(student / 3, 1), functional.log_softmax(teacher / 3, 1), reduction="batchmean",
        log_target=True,
    )  # fmt: skip
    torch.testing.assert_close(divergence(student, teacher, 3.0), 9 * expected)


def test_classes_that_are_not_possible_change_nothing() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, -torch.inf]]), torch.tensor([[0.5, 0.0, -torch.inf]])
    student.requires_grad_()
    found = divergence(student, teacher, 1.0)
    found.backward()
    torch.testing.assert_close(found, divergence(student[:, :2], teacher[:, :2], 1.0))
    assert torch.isfinite(student.grad).all()


def test_the_dense_model_as_student_is_taught_nothing_and_a_changed_one_something(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    prepared = prepare(experiment)
    task, settings = prepared.task(), Distillation(weight=2.0, temperature=2.0)
    model = type(prepared.model)(prepared.model.config)
    model.load_state_dict(prepared.model.state_dict())
    task.start(model)
    engine = LocalEngine(model, EngineSettings(experiment.optimizer, 1e-3))
    plain, taught = Objective(task), Objective(task, settings, prepared.model)
    assert taught(engine, 0).item() == pytest.approx(plain(engine, 0).item(), abs=1e-6)
    with torch.no_grad():
        model.visual_projection.weight.add_(torch.randn_like(model.visual_projection.weight))
    assert taught(engine, 0).item() > plain(engine, 0).item() + 1e-3


def test_the_weight_of_the_teacher_is_a_setting_of_the_point(tmp_path: Path) -> None:
    alone = manifest_of(tiny_experiment(tmp_path))
    taught = manifest_of(tiny_experiment(tmp_path, distill={"weight": 1.0}))
    assert alone["hash"] != taught["hash"]
    assert taught["settings"]["distill"] == {"weight": 1.0, "temperature": 1.0}
    assert alone["metrics"] != taught["metrics"]


def test_an_epoch_may_be_shorter_than_the_data(tmp_path: Path) -> None:
    task = prepare(tiny_experiment(tmp_path)).task()
    assert task.steps_per_epoch() == 6
    assert [Objective(task, epoch_steps=steps).steps_per_epoch for steps in (0, 4, 6, 100)] == [6, 4, 6, 6]
