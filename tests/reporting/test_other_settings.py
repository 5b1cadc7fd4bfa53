"""Points that a sweep computed before its settings were changed: on no curve, never recommended, and listed."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.reporting.results import Made, Template, write_sweep
from upop_ray import report
from upop_ray.config import parse, replaced
from upop_ray.reporting.ledger import read_ledgers
from upop_ray.reporting.page import build_page
from upop_ray.reporting.points import read_all_points, read_points
from upop_ray.reporting.sweeps import read_sweeps
from upop_ray.reporting.watch import Watcher
from upop_ray.store import PointPaths, Store, SweepPaths

RATE = {"retrain.learning_rate": 0.5}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def change(store: Store, **settings: Any) -> None:
    """Ask for other settings, as a run of the sweep with them would before anything is computed."""
    path = SweepPaths("s").experiment
    asked = replaced(parse(yaml.safe_load(store.read(path))), settings)
    store.write(path, yaml.safe_dump(asked.model_dump(mode="json")).encode())


def changed(store: Store, real: Template) -> tuple[str, str]:
    """Hashes of a point of before a change, with the better metric, and of one after it, both of the same name."""
    (old,) = write_sweep(store, real, "s", [Made("upop", 0.5, 0, 59.9)])
    settings = replaced(parse(real.experiment), RATE).model_dump(mode="json")
    (new,) = write_sweep(store, real, "s", [Made("upop", 0.5, 0, 55.0)], retrain=settings["retrain"])
    return old, new


def test_only_points_of_the_present_settings_count(
    store: Store, real: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = changed(store, real)
    assert [row.hash for row in read_points(store, "s")] == [new]
    assert report.main([store.uri, "--max-drop", "6"]) == 0
    said = capsys.readouterr().out
    assert new in said and old not in said and "1 points were computed with other settings" in said
    sweeps = read_sweeps(store)
    page = build_page(store, sweeps, read_ledgers(store, sweeps))
    (other,) = [section for section in page.sections if section.heading == "Computed with other settings"]
    assert old in str(other) and "retrain.learning_rate 0.001 (the sweep has 0.5)" in str(other)
    assert not any(old in str(section) for section in page.sections if section is not other)
    report.main([store.uri, "--to", str(tmp_path / "out")])
    rows = pq.read_table(tmp_path / "out" / "points.parquet").to_pylist()
    assert {row["hash"]: row["state"] for row in rows} == {old: "other settings", new: "finished"}


def test_who_watches_sees_a_change_of_settings(store: Store, real: Template) -> None:
    (point,) = write_sweep(store, real, "s", [Made("upop", 0.5, 0, 59.9)])
    watcher = Watcher(store, "s")
    assert [row.hash for row in watcher.look()[0]] == [point]
    change(store, **RATE)
    assert watcher.look()[0] == []
    change(store, **{"retrain.learning_rate": 0.001})
    assert [row.hash for row in watcher.look()[0]] == [point]


def test_points_that_have_not_finished_are_compared_by_what_they_began_with(store: Store, real: Template) -> None:
    begun, waiting = write_sweep(
        store, real, "s", [Made("upop", 0.5, 0, None, state="failed"), Made("upop", 0.75, 0, None)]
    )
    experiment = replaced(parse(real.experiment), {"search.ratio": 0.5, "search.method": "upop", "name": "s"})
    store.write_json(PointPaths(begun).settings, experiment.model_dump(mode="json"))
    assert [row.hash for row in read_points(store, "s")] == [begun, waiting]
    change(store, **RATE)
    present, others = read_all_points(store, "s")
    assert ([row.hash for row in present], [row.hash for row in others]) == ([waiting], [begun])


def test_what_a_sweep_may_change_is_no_other_setting(store: Store, real: Template) -> None:
    (point,) = write_sweep(store, real, "s", [Made("upop", 0.5, 0, 59.9)])
    change(store, **{"sweep.ratios": [0.9], "sweep.seeds": [7], "sweep.methods": ["mask"], "replica.workers": 2})
    # which other methods than the point's read, or no point does
    change(store, **{"search.gate_learning_rate": 0.5, "checkpoint_steps": 1000, "sweep.by_ratio": {0.9: RATE}})
    assert [row.hash for row in read_points(store, "s")] == [point]
    change(store, **{"sweep.by_ratio": {0.5: RATE}})
    assert read_points(store, "s") == []


def test_draws_of_another_space_are_other_points(store: Store, real: Template) -> None:
    """New draws are numbered from 0 again, so that they would have the names of the old ones."""
    space = {"retrain.learning_rate": {"uniform": [0.1, 1.0]}}
    (point,) = write_sweep(
        store, real, "s", [Made("upop", 0.5, 0, 59.9, drawn={"retrain.learning_rate": 0.2})], sweep={"space": space}
    )
    change(store, **{"sweep.space": {"retrain.learning_rate": {"uniform": [0.1, 0.5]}}})
    assert [row.hash for row in read_points(store, "s")] == [point]
    change(store, **{"sweep.space": {}})
    (row,) = read_all_points(store, "s")[1]
    assert row.cause == "drawn: retrain.learning_rate (the sweep draws nothing)"


def test_the_same_content_elsewhere_is_the_same_point_and_other_content_is_not(store: Store, real: Template) -> None:
    """Content is told by what the dense model scores on it."""
    here, moved, other = write_sweep(store, real, "s", [Made("upop", ratio, 0, 59.9) for ratio in (0.3, 0.5, 0.75)])
    for point in (moved, other):
        manifest = store.read_json(PointPaths(point).manifest)
        manifest["settings"]["data"]["path"] = manifest["settings"]["model"]["path"] = "/elsewhere"
        manifest["dense"]["test"]["r_mean"] += 1.0 * (point == other)
        store.write_json(PointPaths(point).manifest, manifest)
    assert {row.hash for row in read_points(store, "s")} == {here, moved}
    assert read_all_points(store, "s")[1][0].cause == "another model or other data"


def test_points_of_older_versions_have_what_was_the_only_way_then(store: Store, real: Template) -> None:
    (point,) = write_sweep(store, real, "s", [Made("upop", 0.5, 0, 59.9)])
    manifest = store.read_json(PointPaths(point).manifest)
    del manifest["settings"]["model"]["image_size"], manifest["settings"]["search"]["penalty"]
    store.write_json(PointPaths(point).manifest, manifest)
    assert [row.hash for row in read_points(store, "s")] == [point]
    # nothing can be told by an experiment that this version cannot read
    store.write(SweepPaths("s").experiment, b"search: {a_setting_of_old: 1}")
    assert [row.hash for row in read_points(store, "s")] == [point]
