"""Importances of drawn settings."""

import math
import random

from tests.reporting.results import Made, row
from upop_ray.reporting.draw_charts import slice_chart
from upop_ray.reporting.draws import DRAWS, importances
from upop_ray.reporting.sweeps import SweepResults

SPACE = {
    "retrain.learning_rate": {"log_uniform": [1e-3, 1e-2]},
    "batch_size": {"choice": [8, 16]},
}


def sweep(count: int) -> SweepResults:
    """Draws of which the learning rate alone decides, at two ratios far apart."""
    rng = random.Random(0)
    rows = []
    for draw in range(count):
        # wider than the space is now, as after a change of the experiment
        rate, ratio = 10 ** rng.uniform(-4, -1), rng.choice([0.3, 0.75])
        score = 60 - 40 * ratio - 3 * abs(math.log10(rate) + 2.5) + rng.random() * 0.1
        drawn = {"retrain.learning_rate": rate, "batch_size": rng.choice([8, 16])}
        rows.append(row(Made("upop", ratio, 0, score, draw=draw, drawn=drawn)))
    return SweepResults("sweep", rows, {"sweep": {"space": SPACE}}, {}, None)


def test_what_decides_is_important_whatever_the_ratio() -> None:
    (found,) = importances(sweep(24))
    assert sum(found.shares.values()) == 1.0 or math.isclose(sum(found.shares.values()), 1.0)
    assert found.shares["retrain.learning_rate"] > 0.8 > 0.2 > found.shares["batch_size"]


def test_few_draws_tell_nothing() -> None:
    (found,) = importances(sweep(DRAWS - 1))
    assert not found.shares and f"need {DRAWS} finished draws, there are {DRAWS - 1}" in found.reason


def test_equal_draws_tell_nothing() -> None:
    rows = [row(Made("upop", 0.5, 0, 50.0, draw=d, drawn={"batch_size": 8 * (1 + d % 2)})) for d in range(DRAWS)]
    (found,) = importances(SweepResults("sweep", rows, {"sweep": {"space": SPACE}}, {}, None))
    assert not found.shares and "gave the same" in found.reason


def test_choices_may_be_lists() -> None:
    """Which no set takes; one of two decides."""
    space = {"optimizer.betas": {"choice": [[0.9, 0.98], [0.9, 0.999]]}, "batch_size": {"choice": [8, 16]}}
    rows = []
    for draw in range(2 * DRAWS):
        drawn = {"optimizer.betas": [0.9, (0.98, 0.999)[draw % 2]], "batch_size": (8, 16)[draw // 2 % 2]}
        rows.append(row(Made("upop", 0.5, 0, 50.0 + draw % 2, draw=draw, drawn=drawn)))
    results = SweepResults("sweep", rows, {"sweep": {"space": space}}, {}, None)
    (found,) = importances(results)
    assert found.shares["optimizer.betas"] > 0.9
    draws = [
        {"value": r.drawn["optimizer.betas"], "score": 1.0, "ratio": 0.5, "method": "upop", "seed": 0} for r in rows
    ]
    # names of settings may have slashes, names of files not
    chart = slice_chart("search.floors.language/attention", draws, "choice", "r_mean")
    assert set(chart.files()) == {f"draws-search.floors.language-attention.{kind}" for kind in ("svg", "png")}
