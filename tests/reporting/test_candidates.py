"""What a sweep offers, the frontier, and knees, by numbers computed by hand."""

import pytest

from tests.reporting.results import DENSE_PARAMETERS, Made, offers
from upop_ray.reporting.candidates import frontier, knee, smallest


def test_a_candidate_is_the_mean_over_seeds_of_each_ones_best_draw() -> None:
    (found,) = offers(
        Made("upop", 0.5, 0, 58.0, 54.0),
        Made("upop", 0.5, 1, 50.0, 57.0, draw=0),
        # the better draw of its seed on validation, though not on test
        Made("upop", 0.5, 1, 56.0, 52.0, draw=1),
        Made("upop", 0.5, 2, None, state="failed"),
    )
    assert found.score("validation") == (57.0, pytest.approx(2**0.5))
    assert found.score("test") == (53.0, pytest.approx(2**0.5))
    assert found.drop == (3.0, pytest.approx(2**0.5))
    assert found.removed("parameters") == pytest.approx(0.4) and found.size("parameters") == 0.6 * DENSE_PARAMETERS
    assert (found.taken.seed, found.taken.metric("validation")) == (0, 58.0)


def test_the_frontier_has_what_no_smaller_one_beats() -> None:
    found = frontier(
        offers(
            Made("a", 0.3, 0, 58.0),
            Made("b", 0.3, 0, 57.0),
            Made("a", 0.5, 0, 54.0),
            Made("b", 0.5, 0, 58.5),
            # three parameters in a thousand fewer, which is the same size
            Made("c", 0.502, 0, 40.0),
            Made("a", 0.75, 0, 50.0),
        )
    )
    # b at 0.5 is smaller than a at 0.3 and better
    assert [(offer.method, offer.ratio) for offer in found] == [("a", 0.75), ("b", 0.5)]


def test_of_one_size_the_better_is_the_smallest() -> None:
    found = smallest(offers(Made("a", 0.5, 0, 50.0), Made("b", 0.502, 0, 40.0), Made("c", 0.3, 0, 58.0)))
    assert found.method == "a"


@pytest.mark.parametrize(
    ("scores", "at"),
    [
        # scaled heights above the falling diagonal at 0.3, 0.4, 0.5, 0.6: 0.475, 0.6, 0.28, 0
        ({0.3: 59.5, 0.4: 58.0, 0.5: 45.0, 0.6: 40.0}, 0.4),
        # on the diagonal
        ({0.15: 55.0, 0.3: 50.0, 0.45: 45.0, 0.6: 40.0}, None),
        # below it
        ({0.15: 45.0, 0.3: 42.0, 0.45: 41.0, 0.6: 40.0}, None),
        # nothing is lost anywhere
        ({0.15: 60.0, 0.3: 60.0, 0.45: 60.0, 0.6: 60.0}, None),
    ],
)
def test_a_knee_is_the_point_highest_above_the_diagonal(scores: dict[float, float], at: float | None) -> None:
    found = knee(offers(*(Made("upop", ratio, 0, score) for ratio, score in scores.items())))
    assert (found.at.ratio if found.at else None) == at
    assert at is not None or "bends nowhere" in found.reason


def test_three_points_have_no_knee() -> None:
    found = knee(offers(*(Made("upop", ratio, 0, 50.0) for ratio in (0.3, 0.5, 0.75))))
    assert found.at is None and "needs 4 ratios, there are 3" in found.reason
