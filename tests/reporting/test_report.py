"""``python -m upop_ray.report`` as a user types it."""

import io
import json
import re
import time
import xml.etree.ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.reporting.results import Made, Template, write_sweep
from tests.s3 import S3
from tests.test_commands import refused
from upop_ray import report
from upop_ray.store import PointPaths, Store

POINTS = [
    *(Made("upop", ratio, seed, 60 - 10 * ratio - seed, 50.0) for ratio in (0.3, 0.5) for seed in (0, 1)),
    Made("mask", 0.5, 0, 51.0, 55.0),
    Made("random", 0.5, 0, None, state="failed", cause="</script><b>no memory"),
]


def test_a_report_is_a_page_with_its_pictures_and_rows(real: Template, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    hashes = write_sweep(store, real, "one", POINTS)
    target = tmp_path / "out"
    assert report.main([store.uri, "--to", str(target)]) == 0
    page = (target / "report.html").read_text()
    assert all(point in page for point in hashes) and "&lt;/script&gt;&lt;b&gt;no memory" in page
    # one element of ours and one of the library, so that nothing in them ended either
    assert len(re.findall("<script", page)) == 2 and not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    csv = pyarrow.csv.read_csv(target / "points.csv")
    rows = pq.read_table(target / "points.parquet").to_pylist()
    assert len(csv) == len(rows) == len(POINTS)
    by_hash = {row["hash"]: row for row in rows}
    assert by_hash[hashes[1]]["validation.r_mean"] == 56.0 and by_hash[hashes[1]]["test.r_mean"] == 50.0
    assert by_hash[hashes[5]]["state"] == "failed" and by_hash[hashes[5]]["validation.r_mean"] is None
    assert by_hash[hashes[0]]["model"] == store.path(PointPaths(hashes[0]).model)
    figures = {path.name for path in (target / "figures").iterdir()}
    assert {"curve-test-by-macs.png", "frontier.svg", "kept-shares-one.png"} < figures
    # what each site keeps, and what it cost, which the ledger has by part
    kept = {name: value for name, value in by_hash[hashes[0]].items() if name.startswith("kept/")}
    assert kept == {f"kept/{site}": units for site, units in real.manifest["kept_units"].items()}
    as_text = pyarrow.csv.ConvertOptions(column_types={"hash": pa.string()})
    table = pyarrow.csv.read_csv(target / "costs.csv", convert_options=as_text)
    costs = {row["hash"]: row for row in table.to_pylist()}
    # a worker with one CPU, for the time that its manifest has
    hours = pytest.approx(sum(real.manifest["seconds"].values()) / 3600)
    assert by_hash[hashes[0]]["cpu_hours"] == costs[hashes[0]]["cpu_hours.spent"] == hours
    assert by_hash[hashes[0]]["gpu_hours"] == 0.0 and costs[""]["point"] == "idle"
    assert {f"cpu_hours.{part}" for part in ("search", "lost", "saved", "idle")} < costs[""].keys()
    with Image.open(io.BytesIO((target / "figures" / "frontier.png").read_bytes())) as picture:
        assert picture.width > 1000
    xml.etree.ElementTree.parse(target / "figures" / "curve-validation-by-parameters.svg")


def test_a_report_removes_the_figures_of_an_earlier_one_and_nothing_else(real: Template, tmp_path: Path) -> None:
    store, target = Store(str(tmp_path / "store")), tmp_path / "paper"
    for name in ("one", "two"):
        write_sweep(store, real, name, POINTS[:1])
    own = [target / "figures" / "overview.png", target / "figures" / "raw" / "data.csv", target / "notes.txt"]
    for file in own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    assert report.main([store.uri, "--to", str(target)]) == 0
    assert (target / "figures" / "kept-shares-two.svg").exists()
    assert report.main([store.uri, "one", "--to", str(target)]) == 0
    assert (target / "figures" / "kept-shares-one.svg").exists()
    assert not (target / "figures" / "kept-shares-two.svg").exists()
    assert [file.read_text() for file in own] == ["mine"] * 3
    for content in ("{}", '["../store"]', "[1]", "no json"):
        (target / "report.figures.json").write_text(content)
        assert "report.figures.json" in refused(report.main, store.uri, "--to", str(target))


def test_options_may_stand_before_the_names_of_sweeps(
    real: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path))
    write_sweep(store, real, "one", POINTS)
    write_sweep(store, real, "two", POINTS)
    assert report.main([store.uri, "--max-drop", "6", "two"]) == 0
    assert "take   two: upop" in capsys.readouterr().out
    assert "no sweep 'three'" in refused(report.main, store.uri, "--watch", "three")


def test_what_is_no_sweep_is_left_out_and_what_is_broken_is_named(real: Template, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (point,) = write_sweep(store, real, "one", POINTS[:1])
    (tmp_path / "sweeps" / "other").mkdir()
    (tmp_path / "sweeps" / "a[b]").mkdir()
    store.write("sweeps/notes.txt", b"mine")
    assert report.main([store.uri, "--max-drop", "6"]) == 0
    experiment, member, manifest = (
        *(f"sweeps/one/{name}" for name in ("experiment.yaml", f"points/{point}.json")),
        PointPaths(point).manifest,
    )
    found = store.read_json(manifest)
    broken = {
        experiment: [b"a: [1", b"- one", b"\xff", b"sweep: 3", b"sweep: {price: {cpu_hour: cheap}}", b"replica: [1]"],
        member: [b"{}", b"[]", b"{", b'{"cell": 3}'],
        manifest: [b"{}", b"[]", b"null", json.dumps(found | {"metrics": {}}).encode()],
    }
    for name, contents in broken.items():
        before = store.read(name)
        for content in contents:
            store.write(name, content)
            if content != b"null":
                assert name in refused(report.main, store.uri, "--max-drop", "6"), content
        store.write(name, before)
    store.write("sweeps/one/progress.json", b"{}")
    assert "sweeps/one/progress.json" in refused(report.main, store.uri, "--watch")


@pytest.mark.slow
def test_a_bucket_is_reported_like_a_folder(s3: S3, real: Template, tmp_path: Path) -> None:
    store, target = Store(s3.uri("reported")), s3.uri("report")
    hashes = write_sweep(store, real, "one", POINTS)
    assert report.main([store.uri, "--to", target]) == 0
    page = Store(target).read("report.html").decode()
    assert all(point in page for point in hashes) and "AutoModel.from_pretrained" not in page
    assert Store(target).exists("figures/frontier.png")
    assert report.main([store.uri, "--max-drop", "6"]) == 0


def test_advice_names_the_point_and_how_to_take_it(
    tmp_path: Path, real: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path))
    hashes = write_sweep(store, real, "one", POINTS)
    # means over seeds: 3.5 below dense at 0.3, 5.5 at 0.5
    assert report.main([store.uri, "--max-drop", "6"]) == 0
    said = capsys.readouterr().out
    assert f"one: upop at ratio 0.5, seed 0, {hashes[2]}" in said
    assert "5.50 ± 0.71 below the dense 60.00; mean and deviation over 2 seeds" in said
    assert "within the spread" in said and "50.00 ± 0.00 (dense 58.00)" in said
    assert f"python -m upop_ray.export {hashes[2]} --store {store.uri} --to FOLDER" in said
    assert f"from_pretrained('{store.path(PointPaths(hashes[2]).model)}')" in said
    assert report.main([store.uri, "one", "--max-drop", "1", "--max-params", "1.3M"]) == 1
    said = capsys.readouterr().out
    assert "none of 3" in said and hashes[0] in said
    assert not (tmp_path / "report").exists()


def test_bad_input_is_one_line(tmp_path: Path, real: Template) -> None:
    store = Store(str(tmp_path / "store"))
    write_sweep(store, real, "one", POINTS[:1])
    write_sweep(store, real, "begun", [Made("upop", 0.5, 0, None), POINTS[-1]])
    address = store.uri
    lines = {
        refused(report.main, str(tmp_path / "nothing")): ["nothing", "there is no sweep here", "setting store"],
        refused(report.main, address, "two"): [address, "no sweep 'two'", "begun, one"],
        refused(report.main, address, "begun"): ["no point is finished", "1 failed, 1 proposed", "no memory"],
        refused(report.main, address, "one", "--to", "/proc/nothing"): ["/proc/nothing", "cannot be written"],
        refused(report.main, address, "--max-params", "many"): ["--max-params", "'many'", "1.2M"],
        refused(report.main, address, "--max-drop", "1", "--to", "x"): ["--to", "leave out one"],
        refused(report.main, address, "one", "--max-latency", "3"): ["no point was measured", "upop_ray.bench"],
    }
    for line, words in lines.items():
        assert all(word in line for word in words), line
    write_sweep(store, real, "other", POINTS[:1], data={"path": "elsewhere"})
    assert "measure different things" in refused(report.main, address, "one", "other", "--max-drop", "1")


@pytest.mark.slow
def test_two_hundred_points_take_less_than_ten_seconds(tmp_path: Path, real: Template) -> None:
    store = Store(str(tmp_path))
    grid = [
        (method, part / 20, seed)
        for method in ("upop", "mask", "magnitude")
        for part in range(1, 18)
        for seed in range(4)
    ]
    write_sweep(store, real, "many", [Made(*cell, 60 - 10 * cell[1]) for cell in grid[:200]])
    with processor_seconds(10):
        assert report.main([store.uri]) == 0
    assert (tmp_path / "report" / "report.html").stat().st_size < 4e6


@contextmanager
def processor_seconds(limit: float) -> Iterator[None]:
    """Processor time and not the clock's: other tests run beside this one."""
    start = time.process_time()
    yield
    assert time.process_time() - start < limit
