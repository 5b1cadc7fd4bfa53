"""Steps of points, the examples they follow from, and what the store has of them."""

from pathlib import Path
from typing import Any

import pytest

from tests.rows import row_experiment
from tests.tiny import tiny_experiment
from upop_ray import config
from upop_ray.distributed.plan import Cell, cells, member_of
from upop_ray.plan.points import PointPlan, done_of, examples_of, point_plan
from upop_ray.store import PointPaths, Store
from upop_ray.training.objective import Objective
from upop_ray.training.prepared import prepare


def planned(values: dict[str, Any], cell: Cell, examples: int) -> PointPlan:
    return point_plan(config.parse(values), cell, examples)


#: 1000 examples in batches of 100, 2 epochs of search and 3 of retraining
SETTINGS = {"batch_size": 100, "search": {"epochs": 2, "interval": 6}, "retrain": {"epochs": 3}}


def test_a_search_updates_at_multiples_of_the_interval_and_at_its_end() -> None:
    # steps 0, 6, 12, 18 and 19 of 20
    assert planned(SETTINGS, Cell(0.5, "upop", 0), 1099) == PointPlan("upop", 0.5, 0, 20, 5, 30)


def test_a_method_without_a_search_retrains_in_its_time() -> None:
    assert planned(SETTINGS, Cell(0.5, "magnitude", 0), 1000) == PointPlan("magnitude", 0.5, 0, 0, 0, 50)


@pytest.mark.parametrize("method", ["unified", "mask"])
def test_a_method_that_does_not_shrink_ranks_once(method: str) -> None:
    assert planned(SETTINGS, Cell(0.5, method, 0), 1000).updates == 1


def test_what_differs_by_ratio_counts() -> None:
    values = {**SETTINGS, "sweep": {"by_ratio": {0.75: {"search.epochs": 4, "retrain.epochs": 5}}}}
    assert planned(values, Cell(0.75, "upop", 0), 1000) == PointPlan("upop", 0.75, 0, 40, 8, 50)
    assert planned(values, Cell(0.5, "upop", 0), 1000) == PointPlan("upop", 0.5, 0, 20, 5, 30)


def test_draws_of_a_space_are_points_of_their_own() -> None:
    space = {"samples": 3, "space": {"retrain.learning_rate": {"uniform": [1e-4, 1e-3]}}}
    assert planned({**SETTINGS, "sweep": space}, Cell(0.5, "upop", 0), 1000).draws == 3


@pytest.mark.parametrize("name", ["clip", "blip_vqa", "vit"])
def test_steps_are_those_that_training_takes(tmp_path: Path, name: str) -> None:
    experiment = row_experiment(name, tmp_path, epoch_steps=0)
    examples = examples_of(experiment, loaded=True)
    assert examples.known_from == "data" and examples.count is not None
    plan = point_plan(experiment, cells(experiment)[0], examples.count)
    task = prepare(experiment).task()
    assert plan.retrain_steps == experiment.retrain.epochs * Objective(task).steps_per_epoch


def test_questions_are_counted_without_the_model(tmp_path: Path) -> None:
    experiment = row_experiment("blip_vqa", tmp_path)
    with_task, without = (examples_of(experiment, loaded=loaded).count for loaded in (True, False))
    assert with_task is not None and without is not None
    # the task drops an incomplete batch
    assert with_task == without - without % experiment.batch_size > 16


def test_published_numbers_serve_where_the_data_is_not_at_hand() -> None:
    published = {"source": "x", "train_examples": 86_373, "prepare": "y", "checkpoint": "z"}
    missing = {"data": {"path": "/nowhere/at/all"}}
    known = examples_of(config.parse({**missing, "published": published}), loaded=False)
    assert (known.count, known.known_from) == (86_373, "published") and "/nowhere/at/all" in str(known.problem)
    assert examples_of(config.parse(missing), loaded=False).count is None


def test_finished_points_are_those_whose_manifest_is_there(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, sweep={"ratios": [0.3, 0.5], "by_ratio": {0.5: {"search.epochs": 2}}})
    low, high = cells(experiment)
    assert done_of(experiment) == {low: 0, high: 0}
    Store(experiment.store).write_json(PointPaths(member_of(experiment, high).hash).manifest, {})
    assert done_of(experiment) == {low: 0, high: 1}
