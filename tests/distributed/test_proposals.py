"""What a sweep proposes when drawn settings turn out to be dead; points are finished by hand, without Ray."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_experiment
from upop_ray.config import Experiment, parse
from upop_ray.distributed.proposals import Proposals
from upop_ray.store import PointPaths, Store
from upop_ray.training.prepared import content_addresses

PENALTY, RATE = "search.penalty.attention", "retrain.learning_rate"
SPACE = {PENALTY: {"uniform": [0.0, 1.0]}, RATE: {"log_uniform": [1e-4, 1e-2]}}
PRICE = "search.regularisation.mlp"
PRICES = {PRICE: {"uniform": [-1.0, 1.0]}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proposals")


@pytest.fixture
def swept(root: Path, tmp_path: Path) -> Callable[..., list[Experiment]]:
    """Runs a sweep whose points are finished as soon as they are proposed; gives them in order."""

    def sweep(**settings: Any) -> list[Experiment]:
        experiment = tiny_experiment(root, name="dead", store=str(tmp_path), sweep=settings)
        store, points = Store(experiment.store), []
        proposals = Proposals(experiment, store, lambda member, manifest: None)
        while isinstance(proposal := proposals.suggest(str(len(points))), dict):
            point = parse(proposal["experiment"])
            address, _ = content_addresses(point)
            store.write_json(PointPaths(address).manifest, manifest_of(point))
            proposals.on_trial_complete(str(len(points)), {"state": "finished"})
            points.append(point)
        return points

    return sweep


def manifest_of(point: Experiment) -> dict[str, Any]:
    """Results that depend on the learning rate of retraining, the ratio and the price, and on no L1 weight."""
    search = f"{point.search.ratio} {point.search.regularisation.mlp}"
    metrics = {"r_mean": 20.0 + point.retrain.learning_rate}
    return {
        "headline": "r_mean",
        "parameters": 1000,
        "masks_hash": hashlib.sha256(search.encode()).hexdigest(),
        "metrics": {"before_retraining": {"r_mean": 10.0}, "validation": metrics, "test": metrics},
        "losses": {"search": 1.0, "retrain": 1.0 + point.retrain.learning_rate},
    }


def drawn_of(point: Experiment) -> dict[str, float]:
    search = point.search
    return {
        PENALTY: search.penalty.attention,
        RATE: point.retrain.learning_rate,
        PRICE: search.regularisation.mlp,
    }


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("dead")]


def test_a_dead_setting_is_named_once_after_the_first_pair(
    swept: Callable[..., list[Experiment]], capsys: pytest.CaptureFixture[str]
) -> None:
    points = swept(space=SPACE, samples=4)
    assert len({point.search.penalty.attention for point in points}) == 4
    (line,) = said(capsys)
    assert "search.penalty.attention has changed nothing so far with method upop" in line
    assert "draws 0 and 1" in line and line.endswith("or set sweep.fix_dead_settings")
    # found again in the store, and nothing is left to compute
    assert swept(space=SPACE, samples=4) == []
    assert said(capsys) == [line]


def test_a_dead_setting_is_fixed_on_request_and_the_others_are_drawn_on(
    swept: Callable[..., list[Experiment]], capsys: pytest.CaptureFixture[str]
) -> None:
    points = swept(space=SPACE | PRICES, samples=7, fix_dead_settings=True)
    drawn = [drawn_of(point) for point in points]
    changed = [{name for name in drawn[0] if values[name] != drawn[0][name]} for values in drawn]
    assert changed == [set(), {PENALTY}, {RATE}, {PRICE}, *([{RATE, PRICE}] * 3)]
    (line,) = said(capsys)
    assert "it keeps the first of them from here on" in line


def test_only_the_first_cell_of_a_method_tries_one_setting_at_a_time(swept: Callable[..., list[Experiment]]) -> None:
    points = swept(ratios=[0.3, 0.5], space=PRICES | {RATE: SPACE[RATE]}, samples=3, fix_dead_settings=True)
    drawn = [drawn_of(point) for point in points]
    same = [
        sum(values[name] == drawn[index // 3 * 3][name] for name in (PRICE, RATE)) for index, values in enumerate(drawn)
    ]
    assert same == [2, 1, 1, 2, 0, 0]


def test_cells_in_which_everything_drawn_is_dead_have_no_further_points(
    swept: Callable[..., list[Experiment]],
) -> None:
    points = swept(ratios=[0.3, 0.5], space={PENALTY: SPACE[PENALTY]}, samples=4, fix_dead_settings=True)
    assert [point.search.ratio for point in points] == [0.3, 0.3, 0.5]
    assert points[0].search.penalty == points[2].search.penalty


def test_what_a_method_does_not_read_is_named_at_the_start_and_not_drawn(
    swept: Callable[..., list[Experiment]], capsys: pytest.CaptureFixture[str]
) -> None:
    points = swept(methods=["magnitude", "upop"], space={PENALTY: SPACE[PENALTY]}, samples=3)
    assert [point.search.method for point in points] == ["magnitude", "upop", "upop", "upop"]
    assert points[0].search.penalty.attention == 0.0
    lines = said(capsys)
    assert lines[0] == "dead     search.penalty.attention is not read by method magnitude, and not drawn there"
    assert len(lines) == 2


@pytest.mark.parametrize("state", [{"state": "failed", "cause": "an old checkpoint could not be removed"}, None])
def test_a_point_with_a_manifest_is_finished_whatever_happened_after_it(
    root: Path, tmp_path: Path, state: dict[str, Any] | None
) -> None:
    experiment = tiny_experiment(root, store=str(tmp_path))
    store, ended = Store(experiment.store), []
    proposals = Proposals(experiment, store, lambda member, manifest: ended.append((member.state, bool(manifest))))
    proposal = proposals.suggest("0")
    assert isinstance(proposal, dict)
    point = parse(proposal["experiment"])
    store.write_json(PointPaths(content_addresses(point)[0]).manifest, manifest_of(point))
    proposals.on_trial_complete("0", state, error=state is None)
    assert ended == [("proposed", False), ("proposed", True)]


def test_a_point_that_ends_without_a_manifest_in_this_store_has_failed(root: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(root, store=str(tmp_path))
    proposals = Proposals(experiment, Store(experiment.store), lambda member, manifest: None)
    assert isinstance(proposals.suggest("0"), dict)
    proposals.on_trial_complete("0", {"state": "finished"})
    (member,) = proposals.members.values()
    assert member.state == "failed" and f"without a manifest in {experiment.store}" in member.cause
