"""What a page says of a sweep."""

import re
from pathlib import Path

import pytest

from tests.reporting.results import Made, Template, write_sweep
from upop_ray.reporting.blocks import Lines, Page, TableBlock, Text
from upop_ray.reporting.ledger import read_ledgers
from upop_ray.reporting.page import build_page
from upop_ray.reporting.sweeps import quantity, read_sweeps
from upop_ray.store import PointPaths, Store

CAUSE = "worker 1 crashed: </script><b>&"
PUBLISHED = {
    "source": "a paper",
    "split": "dev",
    "train_examples": 10,
    "prepare": "x",
    "checkpoint": "y",
    "points": [
        {"ratio": 0, "parameters": 400e6, "scores": {"r_mean": 80.0}},
        {"ratio": 0.5, "parameters": 300e6, "scores": {"r_mean": 75.0, "other": 1.0}},
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def texts(page: Page, heading: str) -> list[str]:
    """Paragraphs, lines and cells of a section."""
    (section,) = [section for section in page.sections if section.heading == heading]
    found: list[str] = []
    for block in section.blocks:
        if isinstance(block, Text):
            found.append(block.text)
        elif isinstance(block, Lines):
            found += block.lines
        elif isinstance(block, TableBlock):
            found += [" | ".join(cell.text for cell in line) for line in block.table.rows]
    return found


def built(store: Store) -> Page:
    sweeps = read_sweeps(store)
    return build_page(store, sweeps, read_ledgers(store, sweeps))


def test_one_sweep(store: Store, real: Template) -> None:
    points = [
        *(Made("upop", 0.5, seed, 59.0 + seed, 57.0) for seed in (0, 1)),
        Made("upop", 0.75, 0, 50.0, 49.0),
        Made("random", 0.5, 0, None, state="failed", cause=CAUSE),
    ]
    hashes = write_sweep(store, real, "one", points, published=PUBLISHED)
    page = built(store)
    assert page.facts[0].headline.startswith(
        "The smallest model within 1 point of the dense one on validation is upop at ratio 0.5: 40% of the parameters"
    )
    assert "3 of 4 points are finished" in page.facts[0].more and "one seed" in page.facts[0].more
    # at most 0.5 and 1 below dense: 59.5 of 60; at most 5 below: the same, 10 are lost at 0.75
    assert sum(hashes[1] in line for line in texts(page, "What to take")) == 4
    (failed,) = texts(page, "Not finished")
    assert CAUSE in failed and hashes[3] in failed
    assert any("needs 4 ratios, there are 2" in line for line in texts(page, "What to take"))
    curves = " ".join(texts(page, "Curves"))
    assert "a paper; measured there on dev" in curves and "upop 57.00" in curves
    headings = [block.table.columns for block in page.sections[0].blocks if isinstance(block, TableBlock)]
    # ours is always of our test, whatever the others measured on
    assert [columns[3] for columns in headings] == ["ours, test"]
    versions = " ".join(texts(page, "Environment"))
    assert all(package in versions for package in ("torch", "transformers", "replica.workers"))


def test_curves_begin_at_the_dense_model_and_have_their_spread(store: Store, real: Template) -> None:
    points = [Made("upop", 0.5, 0, 57.0), Made("upop", 0.5, 1, 59.0)]
    write_sweep(store, real, "one", points, published=PUBLISHED)
    charts = {chart.name: chart.spec for chart in built(store).charts}
    dense, half = charts["curve-validation-by-parameters"]["data"]["values"]
    assert (dense["removed"], dense["score"]) == (0.0, 60.0)
    assert (half["removed"], half["score"]) == (pytest.approx(0.4), 58.0)
    assert (half["low"], half["high"]) == (58 - 2**0.5, 58 + 2**0.5) and half["shown"] == "58.00 ± 1.41"
    published = charts["curve-test-by-parameters"]["layer"][-1]["data"]["values"]
    assert [(point["removed"], point["score"]) for point in published] == [(0.0, 80.0), (0.25, 75.0)]
    # the source gives no MACs
    assert "published" not in str(charts["curve-test-by-macs"])


def test_sweeps_of_one_measure_share_their_pictures_and_others_do_not(store: Store, real: Template) -> None:
    write_sweep(store, real, "one", [Made("upop", 0.5, 0, 57.0)])
    write_sweep(store, real, "two", [Made("upop", 0.5, 0, 58.0)])
    page = built(store)
    spec = str(next(chart.spec for chart in page.charts if chart.name == "curve-test-by-macs"))
    assert "one upop" in spec and "two upop" in spec
    (other,) = write_sweep(store, real, "three", [Made("upop", 0.5, 0, 57.0)])
    manifest = store.read_json(PointPaths(other).manifest)
    manifest["settings"]["data"]["path"] = "elsewhere"
    store.write_json(PointPaths(other).manifest, manifest)
    names = [chart.name for chart in built(store).charts]
    assert len(set(names)) == len(names) and {"curve-test-by-macs-1", "curve-test-by-macs-2"} < set(names)


def test_points_of_older_versions_are_shown_without_their_layers(store: Store, real: Template) -> None:
    (point,) = write_sweep(store, real, "old", [Made("upop", 0.5, 0, 57.0)])
    manifest = store.read_json(PointPaths(point).manifest)
    for name in ("sites", "masks_hash", "warnings"):
        del manifest[name]
    store.write_json(PointPaths(point).manifest, manifest)
    page = built(store)
    assert any("1 points were computed before layers were written down" in line for line in texts(page, "What is kept"))
    assert "kept-layers-old" not in [chart.name for chart in page.charts]


def test_drawn_settings_have_their_section(store: Store, real: Template) -> None:
    space = {"retrain.learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    drawn = [{"retrain.learning_rate": 10 ** (-4 + draw / 4)} for draw in range(8)]
    points = [Made("upop", 0.5, 0, 50.0 + draw, draw=draw, drawn=own) for draw, own in enumerate(drawn)]
    write_sweep(store, real, "drawn", points, sweep={**real.experiment["sweep"], "space": space})
    page = built(store)
    charts = {chart.name: chart.spec for chart in page.charts}
    assert charts["importances-drawn"]["data"]["values"][0]["importance"] == 1.0
    assert len(charts["draws-retrain.learning_rate-drawn"]["data"]["values"]) == 8
    # all draws are one real point, so that the setting looks dead where metrics agree; these do not
    assert any("No drawn setting" in line for line in texts(page, "Drawn settings"))


def test_latency_is_shown_where_it_was_measured(store: Store, real: Template) -> None:
    (point,) = write_sweep(store, real, "one", [Made("upop", 0.5, 0, 57.0)])
    assert "Latency" not in [section.heading for section in built(store).sections]
    case = {"backend": "eager", "precision": "fp32", "batch": 1}
    headline = {"milliseconds": 2.5, "dense_milliseconds": 5.0, **case}
    found = {"headline": headline, "device": "a CPU", "threads": 1, "verdicts": ["twice as fast"]}
    store.write_json(PointPaths(point).latency, found)
    (line,) = texts(built(store), "Latency")
    assert re.fullmatch(r"upop-0\.5-seed0 \| eager fp32 batch 1 on a CPU.* \| 2\.50 \| 5\.00 \| twice as fast", line)


def test_points_have_the_hours_of_both_devices(store: Store, real: Template) -> None:
    (point,) = write_sweep(store, real, "one", [Made("upop", 0.5, 0, 57.0)])
    note = {"sweep": "one", "begun": 0.0, "seconds": 3600.0, "start": 1.0, "parts": {}, "cpus": 8.0, "gpus": 2.0}
    store.write_json(PointPaths(point).cost(0), note)
    for heading in ("Points", "Cost"):
        (section,) = [section for section in built(store).sections if section.heading == heading]
        (table,) = [block.table for block in section.blocks if isinstance(block, TableBlock)]
        last = dict(zip(table.columns, (cell.text for cell in table.rows[-1]), strict=True))
        assert (last["GPU-hours"], last["CPU-hours"]) == ("2", "8")


def test_counts_have_three_digits() -> None:
    assert [quantity(n) for n in (999, 1476610, 43e6, 223_800_000, 1e9)] == [
        "999",
        "1.48 M",
        "43.0 M",
        "224 M",
        "1.00 G",
    ]
