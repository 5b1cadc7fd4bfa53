"""What is asked of Ray's own launcher; a program that notes its arguments stands in for it."""

import json
import sys
from pathlib import Path

import pytest

from cluster import jobs, launcher
from cluster.errors import ClusterError

YAML = Path(__file__).parents[2] / "cluster" / "aws.yaml"
#: notes its arguments; as "ray dashboard" it opens the port and waits
RAY = """\
#!{python}
import json, pathlib, socket, sys, time
with pathlib.Path({notes!r}).open("a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
if sys.argv[1] == "exec" and not {opens}:
    sys.exit("RuntimeError: Head node of cluster (upop) not found!")
if sys.argv[1] == "dashboard" and {opens}:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[3])))
    time.sleep(60)
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(launcher, "_RAY", tmp_path / "ray")
    stand_in(tmp_path, opens=True)
    return tmp_path / "notes"


def stand_in(folder: Path, opens: bool) -> None:
    program = folder / "ray"
    program.write_text(RAY.format(python=sys.executable, notes=str(folder / "notes"), opens=opens))
    program.chmod(0o755)


def noted(notes: Path) -> list[list[str]]:
    return [json.loads(line) for line in notes.read_text().splitlines()]


def test_up_status_and_down_go_through_rays_launcher(notes: Path) -> None:
    assert launcher.up(YAML) == launcher.status(YAML) == launcher.down(YAML) == 0
    up, status, down = noted(notes)
    assert up == ["up", "--yes", str(YAML)] and down == ["down", "--yes", str(YAML)]
    assert status == ["exec", str(YAML), ". ~/upop/environment; ray status"]


def test_machines_reached_by_ssh_are_told_to_stop_before_they_are_forgotten(notes: Path) -> None:
    file = YAML.with_name("on-premises.yaml")
    assert launcher.down(file) == 0
    stop, down = noted(notes)
    assert stop == ["exec", str(file), ". ~/upop/environment; ray stop"] and down == ["down", "--yes", str(file)]


def test_a_cluster_that_is_not_up_is_one_line_and_may_be_ended_again(notes: Path) -> None:
    stand_in(notes.parent, opens=False)
    file = YAML.with_name("on-premises.yaml")
    with pytest.raises(ClusterError, match=r"on-premises\.yaml: is not up; make cluster-up CLUSTER="):
        launcher.status(file)
    assert launcher.down(file) == 0


@pytest.mark.parametrize("text", ["provider: [", "- a list", "provider: local"])
def test_a_file_of_no_cluster_is_left_to_rays_own_words(notes: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    launcher.down(tmp_path / "odd.yaml")
    assert noted(notes) == [["down", "--yes", str(tmp_path / "odd.yaml")]]


def test_up_makes_the_token_that_the_cluster_file_mounts(notes: Path) -> None:
    launcher.up(YAML)
    assert (notes.parent / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_a_tunnel_opens_for_the_job_server_and_closes_again(notes: Path) -> None:
    with launcher.forwarded(YAML) as access:
        assert access.token == notes.parent / ".ray" / "auth_token"
        port = access.address.rpartition(":")[2]
    assert noted(notes) == [["dashboard", "--port", port, str(YAML)]]
    with pytest.raises(ClusterError, match="does not answer"):
        jobs.submitted(access)


def test_a_tunnel_that_does_not_open_is_one_line(notes: Path) -> None:
    stand_in(notes.parent, opens=False)
    with pytest.raises(ClusterError, match=r"aws\.yaml: no tunnel to its head; is it up\?"), launcher.forwarded(YAML):
        pass


def test_a_missing_cluster_file_is_named(notes: Path) -> None:
    with pytest.raises(ClusterError, match=r"cluster/azure\.yaml: missing"):
        launcher.up(Path("cluster/azure.yaml"))
