"""The token: made once, read by its owner alone, and sent in a header only."""

import stat
from pathlib import Path

import pytest

from cluster.access import Access, ensure_token, without_ray
from cluster.errors import ClusterError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    ensure_token(path)
    token = path.read_text()
    assert len(token) == 64 and mode(path) == 0o600
    ensure_token(path)
    assert path.read_text() == token


def test_a_token_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("made by Ray")
    path.chmod(0o644)
    ensure_token(path)
    assert mode(path) == 0o600 and path.read_text() == "made by Ray"


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    with pytest.raises(ClusterError, match="holds no token; remove it"):
        ensure_token(tmp_path / "token")


def test_commands_get_the_path_of_the_token_and_no_other_clusters_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    (tmp_path / "token").write_text("secret")
    environment = Access("http://127.0.0.1:1", tmp_path / "token").environment()
    assert "RAY_ADDRESS" not in environment and "RAY_AUTH_TOKEN" not in environment
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert "secret" not in environment.values() and "PATH" in without_ray()


def test_a_job_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1: does not answer .* make cluster-status") as caught:
        Access("http://127.0.0.1:1", tmp_path / "token").get("/api/jobs/")
    assert "secret" not in str(caught.value)
