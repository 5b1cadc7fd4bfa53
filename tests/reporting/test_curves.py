"""Curves as TensorBoard reads them, against the numbers of the points."""

from pathlib import Path

import pytest

from tests.reporting.boards import events, finished, scalars
from tests.reporting.results import DENSE, Made
from upop_ray.reporting.curves import Curves, curve_tag, margin_tags
from upop_ray.reporting.points import PointRow
from upop_ray.store import Store


def written(rows: list[PointRow], root: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    store = Store(str(root / "store"))
    board = Curves(store, "s")
    board.update(rows)
    board.close()
    return {
        name: scalars(events(store, f"{board.folder}/{name}", root / "shown" / name))
        for name in store.list(board.folder)
    }


def test_a_curve_begins_at_the_dense_model_and_dense_is_a_line_as_long_as_the_longest(tmp_path: Path) -> None:
    rows = [finished(Made("upop", ratio, 0, value, value - 1)) for ratio, value in ((0.25, 55.0), (0.5, 50.0))]
    found = written([*rows, finished(Made("magnitude", 0.25, 0, 40.0, 41.0))], tmp_path)
    assert set(found) == {"dense", "upop", "magnitude"}
    # rows have lost 0.8 of their ratio, of parameters and of MACs
    for size in ("parameters", "macs"):
        tag = curve_tag("test", "r_mean", size)
        assert found["upop"][tag] == [(0, DENSE["test"]), (200, 54.0), (400, 49.0)]
        assert found["magnitude"][tag] == [(0, DENSE["test"]), (200, 41.0)]
        assert found["dense"][tag] == [(0, 58.0), (200, 58.0), (400, 58.0)]
    assert all(len(tags) == 4 for tags in found.values())


def test_several_seeds_have_a_mean_with_a_band_of_one_deviation(tmp_path: Path) -> None:
    found = written([finished(Made("upop", 0.5, seed, value)) for seed, value in ((0, 40.0), (1, 44.0))], tmp_path)
    assert set(found) == {"dense", "upop seed 0", "upop seed 1", "upop mean"}
    low, high = margin_tags("validation", "r_mean", "parameters")
    # the deviation of two values is their distance by the root of two
    assert found["upop mean"][low] == [(0, 60.0), (400, pytest.approx(42 - 8**0.5, abs=1e-5))]
    assert found["upop mean"][high] == [(0, 60.0), (400, pytest.approx(42 + 8**0.5, abs=1e-5))]
    assert low not in found["upop seed 0"]
