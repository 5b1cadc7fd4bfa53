"""The schedule against the paper's formula and its limits."""

import math

import pytest

from upop_ray.pruning.schedule import cosine, is_update, polynomial, removed_gate, removed_ratio


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_removed_ratio_is_a_quarter_sine(ratio: float) -> None:
    steps = 40
    for step in range(steps):
        expected = ratio * math.sin(math.pi * (step + 1) / (2 * steps))
        assert removed_ratio(step, steps, ratio) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_last_step_removes_exactly_the_ratio(steps: int) -> None:
    assert removed_ratio(steps - 1, steps, 0.3) == 0.3
    assert removed_gate(steps - 1, steps, 0.3) == 0.0


def test_a_third_of_the_way_half_is_removed() -> None:
    # sin(pi / 6) = 1 / 2
    assert removed_ratio(9, 30, 0.8) == pytest.approx(0.4)
    assert removed_gate(9, 30, 0.8) == pytest.approx(0.5)


def test_gates_of_removed_units_fall_from_near_one_to_zero() -> None:
    gates = [removed_gate(step, 100, 0.5) for step in range(100)]
    assert gates == sorted(gates, reverse=True)
    assert gates[0] == pytest.approx(1 - math.sin(math.pi / 200)) and gates[-1] == 0


def test_updates_come_at_multiples_of_the_interval_and_at_the_end() -> None:
    assert [step for step in range(12) if is_update(step, 12, 5)] == [0, 5, 10, 11]
    assert [step for step in range(11) if is_update(step, 11, 5)] == [0, 5, 10]
    assert [step for step in range(3) if is_update(step, 3, 100)] == [0, 2]


def test_the_cosine_goes_from_initial_to_minimum() -> None:
    assert cosine(0, 10, 3.0, 1.0) == 3.0
    assert cosine(5, 10, 3.0, 1.0) == pytest.approx(2.0)
    assert cosine(10, 10, 3.0, 1.0) == pytest.approx(1.0)
    # cos(pi / 3) = 1 / 2
    assert cosine(1, 3, 4.0) == pytest.approx(3.0)


def test_the_polynomial_falls_from_its_start_to_its_minimum() -> None:
    assert polynomial(0, 100, 4e-3, 1e-5) == 4e-3
    assert polynomial(100, 100, 4e-3, 1e-5) == 1e-5
    assert polynomial(50, 100, 1.0) == pytest.approx(0.5**0.9)
