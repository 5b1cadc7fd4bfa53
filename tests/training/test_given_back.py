"""A point that is told to leave is saved at the next step, and goes on elsewhere as if nothing had happened."""

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_experiment
from tests.training.test_point import results
from upop_ray import run
from upop_ray.config import Experiment, replaced
from upop_ray.store import PointPaths, Store
from upop_ray.training.checkpoint import Attempt, latest_checkpoint
from upop_ray.training.engine import LocalEngine
from upop_ray.training.point import Point
from upop_ray.training.prepared import prepare
from upop_ray.training.progress import GivenBack, Host

#: of each phase, an epoch of 48 images in batches of 8
STEPS = 6


def experiment(root: Path, store: str) -> Experiment:
    """Without checkpoints of its own but the one between the phases."""
    return tiny_experiment(root, store=str(root / store), checkpoint_steps=0)


def leave_after(point: Experiment, steps: int) -> None:
    """Compute the point until it has been told to leave after ``steps`` steps of both phases."""
    store, prepared, asked = Store(point.store), prepare(point), iter(range(1, 100))
    attempt = Attempt.begin(store, PointPaths(prepared.hash))
    # it asks after every step
    host = Host(store, LocalEngine, attempt, torch.device("cpu"), lambda: next(asked) >= steps)
    with pytest.raises(GivenBack):
        list(Point(prepared, host).run())


@pytest.mark.parametrize("steps", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS])
def test_a_point_that_leaves_at_any_step_ends_as_if_undisturbed(
    tmp_path: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    left, undisturbed = experiment(tmp_path, "left"), experiment(tmp_path, "undisturbed")
    leave_after(left, steps)
    found = latest_checkpoint(Store(left.store), PointPaths(prepare(left).hash))
    phase, step = ("search", steps) if steps <= STEPS else ("retrain", steps - STEPS)
    assert found is not None and (found.phase, found.step) == (phase, step)
    run.run(left)
    assert f"goes on from step {step} of its {phase}" in capsys.readouterr().out
    run.run(undisturbed)
    (metrics, weights), (expected, weights_then) = results(left), results(undisturbed)
    assert metrics == expected
    assert all(torch.equal(weights[name], value) for name, value in weights_then.items())


def test_a_point_that_goes_on_at_another_zero_stage_says_that_bits_may_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = experiment(tmp_path, "left")
    leave_after(left, 2)
    run.run(replaced(left, {"replica.zero_stage": 1}))
    said = capsys.readouterr().out
    assert "goes on from step 2 of its search with ZeRO stage 1 instead of" in said
    assert "no longer identical to the bit" in said
