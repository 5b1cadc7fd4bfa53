"""What goes with a job: small, with its experiment in it, and a store that outlives it."""

from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.jobs import check_size, packed_files, sent_folder, store_argument

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("name: mine\nstore: results\n")
    return path


def test_the_projects_folder_is_small_without_git_tests_and_results() -> None:
    sent = {file.relative_to(PROJECT).parts[0] for file in packed_files(PROJECT)}
    assert {"upop_ray", "experiments"} <= sent
    assert not sent & {".git", ".venv", "tests", "results", "shared", ".cluster"}
    check_size(PROJECT)


def test_a_large_folder_is_refused_with_its_largest_parts(experiment: Path) -> None:
    folder = experiment.parent
    (folder / "photographs").mkdir()
    with (folder / "photographs" / "all.tar").open("wb") as file:
        file.truncate(150 << 20)
    with pytest.raises(ClusterError) as caught:
        check_size(folder)
    line = str(caught.value)
    assert "150 MiB would go to every node, at most 100 MiB" in line and "photographs 150 MiB" in line
    assert str(folder / ".rayignore") in line
    (folder / ".rayignore").write_text("photographs/\n")
    check_size(folder)


def test_an_experiment_elsewhere_is_sent_with_its_own_folder(experiment: Path) -> None:
    assert sent_folder(experiment) == (experiment.parent, "my.yaml")
    inside = PROJECT / "experiments" / "builtin_clip.yaml"
    assert sent_folder(inside) == (PROJECT, "experiments/builtin_clip.yaml")


def test_a_relative_store_becomes_the_clusters(experiment: Path) -> None:
    assert store_argument(experiment, [], "/data/results") == ["store=/data/results"]
    assert store_argument(experiment, ["store=other"], "s3://bucket/x") == ["store=s3://bucket/x"]


@pytest.mark.parametrize("chosen", ["s3://bucket/prefix", "/shared/results"])
def test_a_store_that_stays_is_kept(experiment: Path, chosen: str) -> None:
    assert store_argument(experiment, [f"store={chosen}"], "/data/results") == []
    experiment.write_text(f"store: {chosen}\n")
    assert store_argument(experiment, [], None) == []


def test_a_relative_store_on_a_cluster_without_one_is_refused(experiment: Path) -> None:
    with pytest.raises(ClusterError, match=r"store: 'results' is a folder of one node.*s3://bucket/prefix"):
        store_argument(experiment, [], None)


def test_a_file_that_is_no_yaml_is_named(experiment: Path) -> None:
    experiment.write_text("a: [")
    with pytest.raises(ClusterError, match=r"my\.yaml: is not YAML"):
        store_argument(experiment, [], "/data/results")
