"""Sweeps on the real path: Ray actors, DeepSpeed replicas, Optuna, TensorBoard, a store in a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import tiny_experiment
from upop_ray import run
from upop_ray.config import Experiment
from upop_ray.distributed import controller
from upop_ray.distributed.controller import run_sweep
from upop_ray.errors import BudgetError, ConfigError, UpopError
from upop_ray.store import PointPaths, Store, SweepPaths


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class OnlyTheDriverHasIt(tune.Callback):
    """Takes away what shows a trial that its node has the driver's folder of Ray Tune: no cluster does."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        (Path(trial.storage.experiment_fs_path) / ".validate_storage_marker").unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def nodes_without_the_drivers_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = controller._tuner

    def with_callback(experiment: Experiment, proposals: Any, listeners: list[tune.Callback], folder: str) -> Any:
        return tuner(experiment, proposals, [*listeners, OnlyTheDriverHasIt()], folder)

    monkeypatch.setattr(controller, "_tuner", with_callback)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


def masks(store: str, hash: str) -> dict[str, torch.Tensor]:
    return load_file(Store(store).path(PointPaths(hash).masks))


def only_manifest(experiment: Experiment) -> dict[str, Any]:
    result = run_sweep(experiment)
    assert result.exit_code == 0 and len(result.rows) == 1
    assert result.rows[0].manifest is not None
    return dict(result.rows[0].manifest)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_sweep_gives_points_and_curves_and_resubmitting_computes_what_is_missing(root: Path) -> None:
    sweep = {"ratios": [0.3, 0.6], "methods": ["upop"]}
    experiment = tiny_experiment(root, name="grid", sweep=sweep)
    result = run_sweep(experiment)
    assert (result.exit_code, result.computed, result.reused) == (0, 2, 0)
    assert [(row.method, row.ratio) for row in result.rows] == [("upop", 0.3), ("upop", 0.6)]
    tensorboard = Path(Store(experiment.store).path(SweepPaths("grid").tensorboard))
    curve = scalars(tensorboard / "curves" / "upop")["curve by parameters removed/test r_mean"]
    expected = [(0, result.rows[0].dense_metric("test"))]
    for row in result.rows:
        assert row.manifest is not None
        expected.append((round(1000 * row.manifest["compression"]["parameters"]), row.metric("test")))
    assert curve == [(step, pytest.approx(value, abs=1e-4)) for step, value in expected]
    point = scalars(tensorboard / "points" / "upop-0.3-seed0")
    assert {"search/loss", "search/ratio", "search/kept/vision/mlp", "retrain/learning_rate"} <= set(point)
    assert {"retrain/validation/r_mean", "search/examples_per_second", "result/test r_mean"} <= set(point)

    again = run_sweep(experiment)
    assert (again.exit_code, again.computed, again.reused) == (0, 0, 2)
    more = run_sweep(tiny_experiment(root, name="grid", sweep=sweep | {"ratios": [0.3, 0.45, 0.6]}))
    assert (more.exit_code, more.computed, more.reused) == (0, 1, 2)


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_two_workers_find_the_masks_of_one_process(root: Path, stage: int) -> None:
    alone = tiny_experiment(root, store=str(root / "alone"))
    manifest = run.run(alone)
    replica = {"workers": 2, "zero_stage": stage}
    if stage == 3:
        # otherwise DeepSpeed keeps parameters this small whole on every worker
        replica["deepspeed"] = {"zero_optimization": {"stage3_param_persistence_threshold": 10}}
    experiment = tiny_experiment(root, name=f"zero{stage}", store=str(root / f"zero{stage}"), replica=replica)
    together = only_manifest(experiment)
    assert together["hash"] == manifest["hash"] and together["workers"] == 2
    expected = masks(alone.store, together["hash"])
    found = masks(experiment.store, together["hash"])
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())
    assert together["checks"]["masked_vs_sliced"] <= 1e-5


@pytest.mark.slow
def test_bf16_replicas_finish(root: Path) -> None:
    replica = {"workers": 2, "zero_stage": 2}
    manifest = only_manifest(tiny_experiment(root, name="bf16", precision="bf16", replica=replica))
    assert manifest["budget"]["achieved"] == pytest.approx(0.5, abs=0.005)


def test_draws_go_through_one_study_and_more_samples_compute_the_difference(root: Path) -> None:
    space = {"retrain.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "search.score": {"choice": ["signed", "absolute"]}}
    result = run_sweep(tiny_experiment(root, name="drawn", sweep={"space": space, "samples": 2}))
    assert (result.exit_code, result.computed) == (0, 2)
    drawn = [json.dumps(dict(row.drawn), sort_keys=True) for row in result.rows]
    assert len(set(drawn)) == 2
    assert all(1e-4 <= row.drawn["retrain.learning_rate"] <= 1e-2 for row in result.rows)
    for row in result.rows:
        assert row.manifest is not None
        assert row.manifest["settings"]["retrain"]["learning_rate"] == row.drawn["retrain.learning_rate"]
    more = run_sweep(tiny_experiment(root, name="drawn", sweep={"space": space, "samples": 3}))
    assert (more.computed, more.reused) == (1, 2)


def test_a_failing_point_is_listed_with_its_cause_and_the_others_finish(root: Path) -> None:
    # MLPs stay whole, and a unit of attention is 1.57% of the budget: 12.75 and 14.47 of them
    sweep = {"ratios": [0.2, 0.227]}
    result = run_sweep(tiny_experiment(root, name="failing", search={"floors": {"mlp": 64}}, sweep=sweep))
    assert result.exit_code == 1
    assert [row.state for row in result.rows] == ["finished", "failed"]
    assert "the model's units are too coarse" in result.rows[1].cause


def test_a_ratio_that_floors_forbid_is_refused_before_anything_starts(root: Path) -> None:
    with pytest.raises(BudgetError, match=r"search\.ratio: 0\.9 .*search\.floors\.vision=0\.5; at most 0\.7\d+ can"):
        run_sweep(
            tiny_experiment(root, name="floored", search={"floors": {"vision": 0.5}}, sweep={"ratios": [0.2, 0.9]})
        )


@pytest.mark.slow
def test_early_stopping_ends_poor_points_and_resubmitting_leaves_them(root: Path) -> None:
    sweep = {"seeds": [0, 1, 2, 3], "early_stopping": {"grace_epochs": 1, "reduction": 2}}
    experiment = tiny_experiment(root, name="halving", retrain={"epochs": 4, "learning_rate": 1e-3}, sweep=sweep)
    result = run_sweep(experiment)
    states = [row.state for row in result.rows]
    assert result.exit_code == 0
    assert set(states) == {"finished", "stopped"} and len(states) == 4
    again = run_sweep(experiment)
    assert (again.computed, again.reused) == (0, 4)
    # workers go on while a report is looked at: one that is stopped before its last report may have finished
    later = [row.state for row in again.rows]
    assert all(now == then or (then, now) == ("stopped", "finished") for then, now in zip(states, later, strict=True))


def test_more_workers_than_the_cluster_has_are_refused_at_once(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"replica\.workers: 4 workers of 1 CPU asked, the cluster has room for 2"):
        run_sweep(tiny_experiment(root, name="large", search={"ratio": 0.41}, replica={"workers": 4}))


class Broken(tune.Trainable):
    """A trial that cannot even begin."""

    def setup(self, config: dict[str, Any]) -> None:
        raise RuntimeError("no such device")


def test_a_trial_that_cannot_begin_is_named_and_ends_the_sweep(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(controller, "PointTrial", Broken)
    sweep = {"ratios": [0.36], "methods": ["magnitude"], "retries": 0}
    with pytest.raises(UpopError, match=r"RuntimeError: no such device; sweep\.retries = 0 are used up"):
        run_sweep(tiny_experiment(root, name="broken", sweep=sweep))
    assert "again    magnitude-0.36-seed0: RuntimeError: no such device" in capsys.readouterr().out
