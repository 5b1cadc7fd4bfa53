"""The commands as a user types them: bad input is one line with field, value and cure, and exit code 2."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.reporting.results import Made, row
from tests.tiny import tiny_values
from upop_ray import run, sweep
from upop_ray.config import parse
from upop_ray.distributed.controller import SweepResult
from upop_ray.reporting.table import points_table
from upop_ray.store import PointPaths, Store
from upop_ray.terminal import console, guarded


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"upop_ray.{module}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands")
    path = root / "experiment.yaml"
    path.write_text(yaml.safe_dump(tiny_values(root)))
    return path


def refused(main: Callable[[list[str]], int], *arguments: str) -> str:
    """The one line on stderr of an entry point that ends with exit code 2; run in this process, which is quicker."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        guarded(lambda: main(list(arguments)))
    assert end.value.code == 2, errors.getvalue()
    lines = errors.getvalue().strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.ratio=1.2", ["search.ratio", "(0, 1)", "1.2", "0.5 removes half"]),
        ("serach.ratio=0.5", ["serach", "unknown", "'search'"]),
        ("data.path=/nowhere/at/all", ["/nowhere/at/all", "missing"]),
        ("model.path=/nowhere/at/all", ["model.path", "/nowhere/at/all"]),
        ("store=/proc/nothing", ["/proc/nothing", "cannot be written"]),
    ],
)
def test_bad_input_is_one_line(experiment: Path, override: str, words: list[str]) -> None:
    line = refused(run.main, str(experiment), override)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("search.pace: {uniform: [0.0, 1.0]}", "search.pace"),
        ("replica.workers: {choice: [1, 2]}", "for the whole sweep"),
    ],
)
def test_a_space_that_cannot_be_drawn_from_is_refused_before_anything_starts(
    experiment: Path, rule: str, words: str
) -> None:
    line = refused(sweep.main, str(experiment), f"sweep.space={{{rule}}}")
    assert words in line
    assert not (experiment.parent / "store" / "points").exists()


def test_a_corrupt_shard_is_named(experiment: Path) -> None:
    shard = experiment.parent / "data" / "shards" / "train.parquet"
    content = shard.read_bytes()
    try:
        shard.write_bytes(content[:-100])
        assert str(shard) in refused(run.main, str(experiment))
    finally:
        shard.write_bytes(content)
    assert not list((experiment.parent / "store").glob("points/*/manifest.json"))


def test_help_says_what_a_newcomer_needs() -> None:
    result = command("sweep", "--help")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("examples:", "ray job submit", "exit code", "tensorboard"))


def test_run_computes_a_point_and_a_second_time_shows_it(experiment: Path) -> None:
    first = command("run", str(experiment), "search.ratio=0.4")
    assert first.returncode == 0, first.stderr
    assert "search   " in first.stdout and "retrain  " in first.stdout and "sliced against masked" in first.stdout
    second = command("run", str(experiment), "search.ratio=0.4")
    assert second.returncode == 0 and "search   " not in second.stdout
    assert second.stdout.splitlines()[-6:] == first.stdout.splitlines()[-6:]


@pytest.mark.parametrize("folder", ["results[old]", "data/[/x]"])
def test_paths_are_printed_as_they_are(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like markup is none."""
    store = Store(str(tmp_path / folder))
    sweep.show(parse({"store": store.uri}), SweepResult([], 0, 0, False, 1.0))
    assert f"models: {store.uri}/points\n" in capsys.readouterr().out
    scores = {"validation": {"r_mean": 1.0}, "test": {"r_mean": 1.0}}
    size = {"parameters": 1, "macs": 1}
    manifest = {"headline": "r_mean", "dense": scores | size, "metrics": scores, **size}
    manifest |= {"settings": {"search": {"method": "upop"}}, "checks": {"masked_vs_sliced": 0.0}}
    run._report(manifest | {"budget": {"asked": 0.5, "of": "params", "achieved": 0.5}}, store, PointPaths("hash"))
    assert f"{store.uri}/points/hash/model\n" in capsys.readouterr().out
    point = row(Made("upop", 0.5, 0, 50.0, drawn={"model.path": "a[/x]"}))
    assert point.manifest is not None
    manifest = {**point.manifest, "budget": {"achieved": 0.5}, "seconds": {}}
    with console.capture() as shown:
        console.print(points_table([replace(point, manifest=manifest)]))
    assert "path=a[/x]" in shown.get()
