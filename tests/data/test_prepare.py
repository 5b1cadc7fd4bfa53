"""The command that prepares data sets: on Ray into a bucket, and what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import layouts
from tests.s3 import S3
from upop_ray.data import prepare
from upop_ray.data.preparation import Preparation, Settings
from upop_ray.data.shards import open_dataset
from upop_ray.terminal import guarded


@pytest.mark.slow
def test_ray_makes_the_shards_that_this_process_makes_and_puts_them_into_a_bucket(tmp_path: Path, s3: S3) -> None:
    layouts.coco_karpathy(tmp_path / "coco")
    small = ("--shard-mb", "0.003", "--row-group-mb", "0.001", "--workers", "2")
    command = [sys.executable, "-m", "upop_ray.data.prepare", "coco", "--source", str(tmp_path / "coco")]
    command += ["--to", s3.uri("coco"), "--partial", *small]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    settings = Settings(shard_mb=0.003, row_group_mb=0.001, partial=True)
    expected = Preparation("coco", str(tmp_path / "coco"), str(tmp_path / "here"), settings).run(map)
    made = open_dataset(s3.uri("coco"))
    assert made.manifest == expected and len(made.manifest["files"]) == 5
    # a line a shard without a terminal, then what was made and where it is
    assert "shards/train-00002.parquet" in done.stdout and "[5/5]" in done.stdout and "rows/s" in done.stdout
    assert "train 10 rows" in done.stdout and s3.uri("coco/README.md") in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("coco", "--source", "nowhere"), "nowhere: no such folder; expected train2014/, val2014/"),
        (("coco", "--source", "{lines}"), "no folder train2014; expected"),
        (("jsonl", "--source", "{lines}", "--limit", "-1"), "--limit: got -1; use 0 or more"),
        (("jsonl", "--source", "{lines}", "--shard-mb", "0"), "--shard-mb: got 0.0; use more than 0"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.json_lines(tmp_path / "lines", {"train": 2, "val": 1, "test": 1})
    given = [argument.format(lines=tmp_path / "lines") for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: prepare.main([*given, "--to", str(tmp_path / "to")]))
    out, error = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert error.startswith("error: ") and problem in error and error.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_help_tells_the_layout_of_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prepare.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for name in ("coco", "flickr30k", "vqa_v2", "nlvr2", "imagenet", "ade20k", "imagefolder", "jsonl"):
        assert f"\n  {name} " in shown
    assert "objectInfo150.txt" in shown and "every node must see --source" in shown
