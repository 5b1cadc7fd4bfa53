"""No secret is written, and no pickle of the store is run."""

import ast
import os
import subprocess
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

import fsspec
import psutil
import pytest

from tests.s3 import S3
from tests.tiny import tiny_experiment
from upop_ray.config import load, parse
from upop_ray.errors import ConfigError
from upop_ray.store import PointPaths, Store

PACKAGE = Path(__file__).parents[1] / "upop_ray"
#: functions that run what a file says
_RUN_FILES = {"pickle.load", "pickle.loads", "cloudpickle.loads", "joblib.load", "yaml.unsafe_load", "yaml.full_load"}


def calls() -> list[tuple[Path, str, set[str]]]:
    """(file, dotted function, keywords) of all calls of the package."""
    return [
        (file, ast.unparse(node.func), {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords})
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_nothing_runs_what_a_file_says() -> None:
    found = calls()
    assert [(file, name) for file, name, _ in found if name in _RUN_FILES] == []
    loads = [words for _, name, words in found if name == "torch.load"]
    assert loads and all("weights_only=True" in words for words in loads)
    assert not [words for _, _, words in found if "allow_pickle=True" in words]
    # an export's own code, just written from ours, is tried before the folder appears
    trusting = {file.relative_to(PACKAGE).as_posix() for file, _, words in found if "trust_remote_code=True" in words}
    assert trusting == {"deploy/outside.py"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", "s3://AKIA:TOPSECRET@bucket/x"),
        ("data.path", "https://TOPSECRET@host/data"),
        ("model.path", "s3://u:TOPSECRET@b/m"),
        # base64 has slashes
        ("store", "s3://AKIA:TOPSECRET/TOPSECRET@bucket/x"),
        ("data.path", "s3://AKIA:1/TOPSECRET@bucket/x"),
        ("model.path", "https://AKIA:TOPSECRET/1@host:9000/m"),
        ("sweep.space", "{model.path: {choice: [builtin:clip, 's3://AKIA:TOP/SECRET@bucket/m']}}"),
        ("replica.deepspeed", "{comment: [['s3://AKIA:TOPSECRET@bucket']]}"),
        # which is no YAML
        ("store", "[s3://AKIA:TOPSECRET@bucket/x"),
        ("data.columns", "{'s3://AKIA:TOPSECRET@bucket': x}"),
    ],
)
def test_credentials_in_settings_are_refused_and_not_repeated(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}.*: its address holds credentials; give them in the env") as caught:
        load(None, [f"{field}={value}"])
    assert "SECRET" not in str(caught.value) and "AKIA" not in str(caught.value)


def test_credentials_in_a_file_are_refused_and_in_its_address(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("sweep: {space: {model.path: {choice: ['s3://AKIA:TOP/SECRET@bucket/m']}}}")
    for path in (file, "s3://AKIA:TOP/SECRET@bucket/e.yaml"):
        with pytest.raises(ConfigError, match="holds credentials") as caught:
            load(path)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["s3://bucket/a@b", "s3://bucket/a:b@c", "http://host:9000/a@b", "https://host/x: mail a@b"]
)
def test_addresses_without_credentials_are_settings(address: str) -> None:
    assert parse({"data": {"path": address}}).data.path == address


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "sweep"])
def test_no_secret_is_written_or_shown(s3: S3, tmp_path: Path, verb: str) -> None:
    """A point, and a sweep, with the store on S3: in the store, the output, Ray's logs, and the command lines."""
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    experiment = tiny_experiment(tmp_path, store=s3.uri(uuid.uuid4().hex), search={"method": "magnitude"})
    file, log = tmp_path / "tiny.yaml", tmp_path / "log"
    file.write_text(experiment.model_dump_json())
    # of sockets, whose paths have to be short
    with tempfile.TemporaryDirectory(prefix="ray-") as ray_folder, log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", f"upop_ray.{verb}", str(file)],
            stdout=output,
            stderr=output,
            env=os.environ | {"RAY_TMPDIR": ray_folder, "PYTHONPATH": str(PACKAGE.parent)},
        )
        lines = command_lines_until_the_end(running)
        logged = {str(path): path.read_bytes() for path in Path(ray_folder).rglob("*") if path.is_file()}
    assert running.returncode == 0, log.read_text()
    assert secret not in log.read_bytes()
    assert [name for name, content in logged.items() if secret in content] == [] and bool(logged) == (verb == "sweep")
    assert secret not in lines and f"upop_ray.{verb}".encode() in lines
    files = fsspec.filesystem("s3")
    written = {name: files.cat_file(name) for name in files.find(experiment.store)}
    assert {"manifest.json", "experiment.json"} <= {name.rpartition("/")[2] for name in written}
    assert [name for name, content in written.items() if secret in content] == []


def command_lines_until_the_end(running: subprocess.Popen[bytes]) -> bytes:
    """The command lines of a process and its descendants, seen every 0.2 s."""
    seen = b""
    while running.poll() is None:
        root = psutil.Process(running.pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error, OSError):
                seen += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        with suppress(subprocess.TimeoutExpired):
            running.wait(0.2)
    return seen


def test_a_point_on_s3_is_that_in_a_folder(s3: S3, tmp_path: Path) -> None:
    from upop_ray.run import run

    there, here = (Store(uri) for uri in (s3.uri(uuid.uuid4().hex), str(tmp_path / "here")))
    manifests = [run(tiny_experiment(tmp_path, store=store.uri)) for store in (there, here)]
    for name in ("hash", "metrics", "kept_units", "budget", "parameters", "settings"):
        assert manifests[0][name] == manifests[1][name], name
    paths = PointPaths(str(manifests[0]["hash"]))
    assert list(there.sizes(paths.model)) and there.sizes(paths.model) == here.sizes(paths.model)
    for name in [paths.masks, *here.sizes(paths.model)]:
        assert there.read(name) == here.read(name), name
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [name for name in there.sizes("points") if secret in there.read(name)]
    # of the attempt its claim is left, and what it cost
    assert {name.rpartition("/")[2] for name in there.sizes(paths.attempts)} == {"started.json", "cost.json"}
