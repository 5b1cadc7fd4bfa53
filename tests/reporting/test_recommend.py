"""Which point is recommended: by validation alone, within limits, and the nearest where there is none."""

import pytest

from tests.reporting.results import Made, offers
from upop_ray.reporting.candidates import Candidate
from upop_ray.reporting.recommend import Limits, Recommendation, recommend

#: dense: validation 60, 2 M parameters, 50 M MACs; a ratio takes 0.8 of it away
POINTS = (
    Made("upop", 0.25, 0, 59.5, 50.0),
    Made("upop", 0.5, 0, 59.4, 40.0),
    Made("upop", 0.5, 1, 58.4, 40.0),
    Made("mask", 0.5, 0, 58.0, 57.0),
    Made("upop", 0.75, 0, 55.0, 57.9),
)


def chosen(found: Recommendation) -> tuple[str, float] | None:
    return (found.chosen.method, found.chosen.ratio) if found.chosen else None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        # the mean over seeds, 1.1, decides, not the better seed's 0.6
        (Limits(drop=1.0), ("upop", 0.25)),
        (Limits(drop=1.1 + 1e-9), ("upop", 0.5)),
        (Limits(drop=5.0), ("upop", 0.75)),
        (Limits(drop=2.0), ("upop", 0.5)),
        # without a drop the best on validation
        (Limits(parameters=1.3e6), ("upop", 0.5)),
        (Limits(macs=25e6), ("upop", 0.75)),
        (Limits(drop=3.0, parameters=1.3e6), ("upop", 0.5)),
        (Limits(drop=1.0, parameters=1.3e6), None),
        (Limits(drop=0.0), None),
    ],
)
def test_limits_choose(limits: Limits, expected: tuple[str, float] | None) -> None:
    assert chosen(recommend(offers(*POINTS), limits, {})) == expected


def test_what_test_says_chooses_nothing() -> None:
    turned = [Made(p.method, p.ratio, p.seed, p.validation, 100 - p.test) for p in POINTS]
    for limits in (Limits(drop=1.5), Limits(parameters=1.3e6), Limits(drop=0.1)):
        before, after = (recommend(offers(*points), limits, {}) for points in (POINTS, turned))
        assert chosen(before) == chosen(after)
        assert (before.nearest and before.nearest.taken.hash) == (after.nearest and after.nearest.taken.hash)


def test_the_nearest_misses_least_in_the_range_of_all() -> None:
    # drops: 0.5, 1.1, 2, 5; parameters: 1.6, 1.2, 1.2, 0.8 M
    only_drop = recommend(offers(*POINTS), Limits(drop=0.2), {})
    assert only_drop.nearest is not None and only_drop.nearest.ratio == 0.25
    # misses: upop 0.25 (0, 0.875), upop 0.5 (0.02, 0.375), mask 0.5 (0.22, 0.375), upop 0.75 (0.89, 0)
    both = recommend(offers(*POINTS), Limits(drop=1.0, parameters=0.9e6), {})
    assert both.nearest is not None and (both.nearest.method, both.nearest.ratio) == ("upop", 0.5)


def test_latency_is_that_of_the_point_that_is_taken() -> None:
    found = offers(*POINTS)
    by_ratio: dict[tuple[str, float], Candidate] = {(offer.method, offer.ratio): offer for offer in found}
    half, small = by_ratio["upop", 0.5], by_ratio["upop", 0.75]
    best, other = half.taken.hash, half.rows[1].hash
    assert best != other
    # the other seed would pull the mean below the limit
    times = {best: 12.0, other: 6.0, small.taken.hash: 4.0}
    assert chosen(recommend(found, Limits(latency=10.0), times)) == ("upop", 0.75)
    assert chosen(recommend(found, Limits(latency=12.0), times)) == ("upop", 0.5)
    assert recommend(found, Limits(latency=3.0), times).nearest is small
    # what was not measured is within no limit
    assert chosen(recommend(found, Limits(latency=10.0), {other: 6.0, small.taken.hash: 4.0})) == ("upop", 0.75)
    assert recommend(found, Limits(latency=10.0), {other: 6.0}) == Recommendation(None, None, 0, "")
