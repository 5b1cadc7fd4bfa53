"""Converting through the entry point, in this process instead of on Ray."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from upop_ray.data import prepare
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.distributed import parallel

Convert = Callable[..., ShardedDataset]


def here(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int = 0) -> Iterable[Any]:
    """What `map_jobs` does, without Ray."""
    return map(function, jobs)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a layout is to be laid out."""
    return tmp_path / "source"


@pytest.fixture
def convert(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    """`convert(DATASET, "--limit", "3")`: the data set that the command makes of `source`."""
    monkeypatch.setattr(parallel, "map_jobs", here)

    def run(dataset: str, *options: str) -> ShardedDataset:
        target = tmp_path / "prepared"
        assert prepare.main([dataset, "--source", str(source), "--to", str(target), "--partial", *options]) == 0
        return open_dataset(str(target))

    return run


def rows(dataset: ShardedDataset, split: str, key: str = "image_id") -> dict[str, dict[str, Any]]:
    """The rows of a split by their id."""
    found = dataset.split(split).to_pylist()
    assert len({row[key] for row in found}) == len(found)
    return {row[key]: row for row in found}
