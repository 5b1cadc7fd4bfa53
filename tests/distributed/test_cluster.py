from pathlib import Path

import pytest

from upop_ray.config import Experiment
from upop_ray.distributed.cluster import with_absolute_paths
from upop_ray.errors import ConfigError


def test_results_are_not_written_into_a_job_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="'results' would lie in this job's folder, which goes with it; write an abs"):
        with_absolute_paths(Experiment(store="results"))
    assert with_absolute_paths(Experiment(store=str(tmp_path / "here"))).store == str(tmp_path / "here")


def test_a_relative_store_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths(Experiment(store="results")).store == str(tmp_path / "results")
