"""Where a data set is prepared: what belongs to others is left alone."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.test_preparation import SMALL, prepare
from upop_ray.data.preparation import Preparation, Settings
from upop_ray.data.shard_making import Job, Record
from upop_ray.data.target import Target
from upop_ray.errors import DataError
from upop_ray.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty cats and twenty dogs to train on, six of each to test."""
    layouts.image_folder(tmp_path / "source", {"train": 20, "test": 6})
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to prepare."""
    return tmp_path / "prepared"


def test_what_dead_processes_left_is_removed_and_what_others_write_is_not(source: Path, target: Path) -> None:
    left, fresh = (target / "shards" / f"train-0000{n}.parquet.{'0f' * 16}.tmp" for n in (0, 1))
    foreign = [target / "shards" / name for name in (f"data.bin.{'0f' * 16}.tmp", "train-00000.parquet.1.tmp")]
    Target(Store(str(target)), "imagefolder").begin("elsewhere")
    for path in (left, fresh, *foreign):
        layouts.write(path, "half")
        os.utime(path, (0, 0))
    os.utime(fresh)
    Target(Store(str(target)), "imagefolder").begin("elsewhere")
    assert not left.exists() and fresh.exists()
    prepare(source, target)
    # when all is done nobody writes any more
    assert not fresh.exists() and all(path.exists() for path in foreign)


def test_a_folder_that_holds_another_data_set_is_left_alone(source: Path, target: Path, tmp_path: Path) -> None:
    prepare(source, target)
    layouts.json_lines(tmp_path / "lines", {"train": 4, "val": 1, "test": 1})
    with pytest.raises(DataError, match=r"manifest.json: belongs to the data set 'imagefolder'; prepare into another"):
        Preparation("jsonl", str(tmp_path / "lines"), str(target), SMALL)


def test_a_folder_that_was_begun_for_another_data_set_is_left_alone(source: Path, target: Path, tmp_path: Path) -> None:
    def stopped(function: Callable[[Job], Record], jobs: Sequence[Job]) -> Iterable[Record]:
        yield function(jobs[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, target, mapper=stopped)
    layouts.json_lines(tmp_path / "lines", {"train": 4, "val": 1, "test": 1})
    with pytest.raises(
        DataError, match=r"prepare.json: was begun for the data set 'imagefolder'; prepare into another"
    ):
        Preparation("jsonl", str(tmp_path / "lines"), str(target), SMALL)


@pytest.mark.parametrize("name", ["README.md", "shards/precious.tar"])
def test_a_folder_that_others_have_filled_is_left_alone(name: str, source: Path, target: Path) -> None:
    layouts.write(target / name, "mine")
    with pytest.raises(DataError, match=rf"holds {name}, but neither manifest.json nor prepare.json, .*empty folder"):
        prepare(source, target)
    assert [path for path in target.rglob("*") if path.is_file()] == [target / name]


def test_files_of_others_beside_the_shards_stay(source: Path, target: Path) -> None:
    prepare(source, target)
    layouts.write(target / "shards" / "precious.tar", "mine")
    prepare(source, target, Settings(shard_mb=0.006, row_group_mb=0.001))
    assert (target / "shards" / "precious.tar").read_text() == "mine"


@pytest.mark.parametrize("name", ["manifest.json", "prepare.json"])
def test_a_record_of_another_form_is_named(name: str, source: Path, target: Path) -> None:
    layouts.write(target / name, [1])
    with pytest.raises(DataError, match=rf"{name}: .* the data set None; prepare into another folder"):
        prepare(source, target)
