"""Pushing, to a small server that answers as a hub does, since no hub is to be reached from tests."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from tests.deploy.points import finished
from tests.test_commands import refused
from upop_ray import export
from upop_ray.deploy.hub import push, require_token
from upop_ray.errors import ConfigError

TOKEN = "hf_testtoken"


@dataclass
class Hub:
    """What was asked of the server.

    :param refuses: it answers that the token may not write
    :param card: what it was asked to validate
    """

    address: str = ""
    refuses: bool = False
    card: str = ""
    created: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)

    def reply(self, path: str, body: bytes) -> dict[str, Any]:
        """The answer to a POST."""
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": f"{self.address}/me/small"}
        if path == "/api/validate-yaml":
            self.card = json.loads(body)["content"]
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            names = [entry["path"] for entry in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return {"commitUrl": f"{self.address}/me/small/commit/1", "commitOid": "1", "success": True}


@contextmanager
def serving(hub: Hub) -> Iterator[None]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.tokens.add(self.headers["Authorization"])
            if hub.refuses:
                self.answer(403, {"error": "You may not write here"})
            else:
                self.answer(200, hub.reply(self.path, body))

        def do_GET(self) -> None:
            self.answer(200, {"id": "me/small", "sha": "0" * 40, "siblings": [], "private": True})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server that is the hub of this process, with a token."""
    found = Hub()
    with serving(found):
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("upop_ray.deploy.folder.remote_code_difference", lambda *_: 0.0)
        yield found


@pytest.mark.parametrize("public", [False, True])
def test_every_file_of_the_export_gets_there_and_new_repositories_are_private(
    tmp_path: Path, hub: Hub, public: bool
) -> None:
    store, (manifest, _) = finished()
    point = [manifest["hash"], "--store", str(store), "--to", str(tmp_path / "export"), "--push", "me/small"]
    assert export.main([*point, *(["--public"] if public else [])]) == 0
    assert hub.created["name"] == "small" and hub.created["organization"] == "me"
    assert hub.created["visibility"] == ("public" if public else "private")
    assert hub.files == {file.name: file.read_bytes() for file in (tmp_path / "export").iterdir()}
    assert hub.card.encode() == hub.files["README.md"]
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_a_refusal_is_one_line_without_the_token(tmp_path: Path, hub: Hub) -> None:
    hub.refuses = True
    store, (manifest, _) = finished()
    to = ["--to", str(tmp_path / "export"), "--push", "me/small"]
    line = refused(export.main, manifest["hash"], "--store", str(store), *to)
    assert "--push" in line and "refused me/small" in line and "403" in line and TOKEN not in line
    # what was made stays
    assert (tmp_path / "export" / "README.md").is_file()


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9 cannot be reached.* is complete; push it"):
        push(tmp_path, "me/small", public=False)


def test_a_missing_token_and_a_wrong_name_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    line = refused(export.main, "aaaa", "--to", str(tmp_path / "export"), "--push", "me/small")
    assert "no token" in line and "HF_TOKEN" in line
    with pytest.raises(ConfigError, match="use OWNER/NAME"):
        require_token("a/b/c")
