"""Dead settings: what equal and unequal points prove, and that the published L1 weights are found dead."""

from typing import Any

import pytest

from tests.tiny import tiny_experiment
from upop_ray import run
from upop_ray.config import Experiment, replaced
from upop_ray.reporting.dead import DeadSettings, dead_settings, unread_settings
from upop_ray.reporting.points import PointRow

PENALTY, PRICE, RATE = "search.penalty.attention", "search.regularisation.mlp", "retrain.learning_rate"


def row(drawn: dict[str, Any], masks: str, retrained: float, **cell: Any) -> PointRow:
    """A point whose search ended with ``masks``, and whose retraining ended with a loss of ``retrained``."""
    manifest = {
        "masks_hash": masks,
        "metrics": {"before_retraining": {"r_mean": 20.0}, "validation": {"r_mean": 30.0}, "test": {"r_mean": 31.0}},
        "losses": {"search": float(len(masks)), "retrain": retrained},
    }
    place = {"method": "upop", "ratio": 0.5, "seed": 0, "draw": 0} | cell
    return PointRow(**place, drawn=drawn, hash=f"{drawn}{cell}", state="finished", cause="", manifest=manifest)


def named(rows: list[PointRow]) -> list[str]:
    return [dead.name for dead in dead_settings(rows)]


def test_a_pair_of_equal_points_names_the_setting_that_differs_and_says_how_one_knows() -> None:
    found = DeadSettings([row({PENALTY: 0.001}, "a", 1.0), row({PENALTY: 0.02}, "a", 1.0 + 1e-9, draw=1)]).found()
    assert [dead.text() for dead in found] == [
        "search.penalty.attention has changed nothing so far with method upop: 0.001 and 0.02 gave the same masks, "
        "losses and metrics (ratio 0.5, seed 0, draws 0 and 1)"
    ]


def test_equal_metrics_do_not_name_a_setting_whose_losses_differ() -> None:
    """Recalls of a few images are equal sooner than what was trained."""
    assert named([row({RATE: 1e-3}, "a", 1.0), row({RATE: 1.01e-3}, "a", 1.0005)]) == []


def test_points_of_different_cells_prove_nothing() -> None:
    for cell in ({"ratio": 0.6}, {"seed": 1}, {"method": "unified"}):
        assert named([row({PENALTY: 0.001}, "a", 1.0), row({PENALTY: 0.02}, "a", 1.0, **cell)]) == []


def test_an_equal_search_names_its_settings_although_retraining_differs() -> None:
    """With continuous draws every pair differs in everything that is drawn."""
    rows = [row({PENALTY: 0.001, RATE: 1e-3}, "a", 1.0), row({PENALTY: 0.02, RATE: 2e-3}, "a", 1.1)]
    assert named(rows) == [PENALTY]
    other = "optimizer.weight_decay"
    assert named([row({PENALTY: 1.0, other: 0.1}, "a", 1.0), row({PENALTY: 2.0, other: 0.2}, "a", 1.1)]) == []


def test_a_pair_that_differs_in_one_setting_and_in_results_clears_it_for_good() -> None:
    near = [row({PRICE: 0.01}, "a", 1.0), row({PRICE: 0.011}, "a", 1.0)]
    far = row({PRICE: 0.5}, "bb", 1.3)
    assert named(near) == [PRICE]
    assert named([*near, far]) == named([far, *near]) == []
    # two that differ at once tell nothing of either
    both = [row({PENALTY: 0.1, PRICE: 0.1}, "a", 1.0), row({PENALTY: 0.2, PRICE: 0.2}, "bb", 1.2)]
    third = row({PENALTY: 0.3, PRICE: 0.1}, "a", 1.0)
    assert named(both) == [] and named([*both, third]) == [PENALTY]


def test_points_of_older_stores_prove_nothing() -> None:
    old = row({PENALTY: 0.001}, "a", 1.0)
    manifest = {name: value for name, value in (old.manifest or {}).items() if name != "masks_hash"}
    unlike = PointRow("upop", 0.5, 0, 1, {PENALTY: 1.0}, "x", "finished", "", manifest)
    unfinished = PointRow("upop", 0.5, 0, 2, {PENALTY: 2.0}, "y", "failed", "", None)
    assert named([old, unlike, unfinished]) == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return tiny_experiment(tmp_path_factory.mktemp("dead"))


def test_on_a_real_model_the_published_l1_weights_are_dead_and_prices_and_rates_are_not(tiny: Experiment) -> None:
    drawn = [
        {PENALTY: 0.0, PRICE: 0.0, RATE: 1e-3},
        {PENALTY: 0.3, PRICE: 0.0, RATE: 1e-3},
        {PENALTY: 0.3, PRICE: 0.3, RATE: 1e-3},
        {PENALTY: 0.3, PRICE: 0.0, RATE: 1.01e-3},
    ]
    rows = []
    for draw, values in enumerate(drawn):
        manifest = run.run(replaced(tiny, values))
        rows.append(PointRow("upop", 0.5, 0, draw, values, str(manifest["hash"]), "finished", "", manifest))
    assert named(rows[:2]) == [PENALTY]
    assert named(rows) == named(rows[::-1]) == [PENALTY]


def unread(tiny: Experiment, methods: list[str], space: dict[str, Any]) -> list[tuple[str, str]]:
    sweep = {"sweep.methods": methods, "sweep.space": space}
    return [(dead.method, dead.name) for dead in unread_settings(replaced(tiny, sweep))]


def test_settings_that_a_method_does_not_read_are_known_before_anything_runs(tiny: Experiment) -> None:
    space = {PENALTY: {"uniform": [0.0, 1.0]}, RATE: {"log_uniform": [1e-4, 1e-2]}, "report_steps": {"choice": [1, 2]}}
    found = unread(tiny, ["upop", "magnitude"], space)
    assert found == [("magnitude", PENALTY), ("magnitude", "report_steps"), ("upop", "report_steps")]


def test_a_setting_that_is_read_beside_some_draws_only_is_read(tiny: Experiment) -> None:
    temperature = {"distill.temperature": {"uniform": [1.0, 4.0]}}
    assert unread(tiny, ["upop"], temperature) == [("upop", "distill.temperature")]
    assert unread(tiny, ["upop"], temperature | {"distill.weight": {"choice": [0.0, 1.0]}}) == []
