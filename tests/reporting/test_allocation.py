"""Kept widths over a search, from what a real point has logged."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.reporting.results import Made, Template, write_sweep
from upop_ray.errors import StoreError
from upop_ray.reporting.allocation import MOMENTS, courses, placed
from upop_ray.reporting.points import read_points
from upop_ray.store import PointPaths, Store


def test_a_course_goes_from_the_dense_widths_to_the_sliced_ones(tmp_path: Path, real: Template) -> None:
    store = Store(str(tmp_path))
    (point,) = write_sweep(store, real, "sweep", [Made("upop", 0.5, 0, 50.0)])
    sites = courses(store, read_points(store, "sweep"))[point]
    assert {site.site: site.kept[-1] for site in sites} == real.manifest["kept_units"]
    assert all(site.kept[0] == site.units and len(site.kept) == MOMENTS for site in sites)
    logged = [row for row in pq.read_table(io.BytesIO(real.metrics)).to_pylist() if row["phase"] == "masks"]
    last = max(row["step"] for row in logged)
    for site in sites:
        half = [row["value"] for row in logged if row["name"] == site.site and row["step"] <= last / 2]
        assert site.kept[5] == half[-1]


def test_a_point_without_a_search_is_at_its_end_at_once(tmp_path: Path, real: Template) -> None:
    store = Store(str(tmp_path))
    (point,) = write_sweep(store, real, "sweep", [Made("magnitude", 0.5, 0, 50.0)])
    table = pq.read_table(io.BytesIO(real.metrics), filters=[("phase", "!=", "masks")])
    pq.write_table(table, store.path(PointPaths(point).metrics))
    for site in courses(store, read_points(store, "sweep"))[point]:
        assert set(site.kept[1:]) == {real.manifest["kept_units"][site.site]}


def test_a_broken_file_is_named(tmp_path: Path, real: Template) -> None:
    store = Store(str(tmp_path))
    (point,) = write_sweep(store, real, "sweep", [Made("upop", 0.5, 0, 50.0)])
    store.write(PointPaths(point).metrics, b"PAR1 no more")
    with pytest.raises(StoreError, match=rf"{point}/metrics\.parquet: not a readable Parquet file"):
        courses(store, read_points(store, "sweep"))


def test_sites_have_their_place() -> None:
    assert placed("vision.3.mlp") == ("vision MLP", 3)
    assert placed("text.11.cross1") == ("text cross attention 1", 11)
