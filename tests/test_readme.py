"""Every command of the README, run on a tiny experiment in place of the one it names, or named with its own test."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
import yaml

from tests.data import layouts
from tests.s3 import S3, s3
from tests.tiny import tiny_values

__all__ = ["s3"]

REPOSITORY = Path(__file__).parents[1]
_STARTS = r"(?:FSSPEC_S3\S* \S+ )?(?:make|python -m|ray job submit|tensorboard|pip install|\. \.venv)"
#: parts of commands whose test is elsewhere, or that would change this machine: they need more than a store
ELSEWHERE = {
    "make test": "this runs in it",
    "make chaos": "tests/chaos",
    "make cluster-up": "tests/cluster/test_local.py",
    "make submit": "tests/cluster/test_local.py",
    "make cluster-status": "tests/cluster/test_local.py",
    "make logs": "tests/cluster/test_local.py",
    "make cluster-down": "tests/cluster/test_local.py",
    "ray job submit": "tests/cluster/test_local.py",
    "pip install": "the extras are installed with the tests' own",
    ". .venv/bin/activate": "the tests run in it",
    "--push": "tests/deploy/test_hub.py",
    "upop_ray.training.pretrain": "tests/training/test_pretrain.py",
    "upop_ray.data.emoji.build": "tests/data/test_emoji_build.py",
}


def commands() -> list[str]:
    """Commands of shell blocks and in running text, each once, without comments."""
    lines, prose, block = [], [], None
    for line in (REPOSITORY / "README.md").read_text().splitlines():
        if line.startswith("```"):
            block = line.removeprefix("```") if block is None else None
        elif block is None:
            prose.append(line)
        elif block == "":
            lines.append(line.partition(" #")[0].strip())
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", "\n".join(prose))]
    return [line for line in dict.fromkeys([*lines, *spans]) if re.match(_STARTS, line)]


def python_blocks() -> list[str]:
    """Blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE)


#: the first commands, which take minutes on the built-in experiment: here a smaller one is in its place
FIRST = ("python -m upop_ray.sweep", "make sweep")


def elsewhere(command: str) -> str | None:
    if command in FIRST:
        return "test_the_first_commands_run_the_builtin_experiment"
    return next((why for part, why in ELSEWHERE.items() if part in command), None)


HERE = [command for command in commands() if elsewhere(command) is None]


def test_the_readme_has_the_commands_that_users_need() -> None:
    modules = {match[1] for command in commands() if (match := re.search(r"python -m (upop_ray[\w.]*)", command))}
    assert {f"upop_ray.{name}" for name in ("sweep", "run", "plan", "report", "export", "bench", "doctor")} <= modules


def test_what_is_said_to_be_elsewhere_is_there() -> None:
    files = [word for why in ELSEWHERE.values() for word in why.split() if "/" in word]
    assert files and [file for file in files if not (REPOSITORY / file).exists()] == []
    said = commands()
    assert [part for part in ELSEWHERE if not any(part in command for command in said)] == []
    assert set(FIRST) < set(said)


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("make ")])
def test_targets_exist(command: str) -> None:
    words = [word for word in shlex.split(command) if not word.startswith("[")]
    done = subprocess.run([words[0], "-n", *words[1:]], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Place:
    """A folder as a user has it after the first commands.

    :param names: what stands in the README -> what is there
    """

    folder: Path
    names: dict[str, str]
    environment: dict[str, str]

    def arguments(self, command: str) -> list[str]:
        for name, here in self.names.items():
            command = re.sub(rf"(?<![\w./]){re.escape(name)}(?![\w])", lambda _, here=here: here, command)
        return shlex.split(command)

    def run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        assert arguments[0] == "python"
        line = [sys.executable, *arguments[1:]]
        return subprocess.run(
            line, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> Iterator[Place]:
    """A tiny experiment under each name of experiments/, two finished points in results/, an exported model."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "experiments").mkdir()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    address = ray.get_runtime_context().gcs_address
    environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "160"}
    for name in ("builtin_clip", "builtin_vit", "builtin_blip_vqa", "FILE"):
        values = tiny_values(folder, name=name, store="results", sweep={"ratios": [0.3, 0.5]})
        (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(values))
    layouts.coco_karpathy(folder / "coco")
    names = {"/data/coco": str(folder / "coco"), "s3://bucket": s3.uri("readme"), "FILE": "experiments/FILE.yaml"}
    names |= {
        "experiments/FILE.yaml": "experiments/FILE.yaml",
        "experiments/blip_nlvr2.yaml": str(REPOSITORY / "experiments/blip_nlvr2.yaml"),
    }
    place = Place(folder, names, environment)
    done = place.run(["python", "-m", "upop_ray.sweep", "experiments/builtin_clip.yaml"])
    assert done.returncode == 0, done.stderr
    place.names["HASH"] = next(path.parent.name for path in sorted(folder.glob("results/points/*/manifest.json")))
    done = place.run(["python", "-m", "upop_ray.export", place.names["HASH"], "--to", "exported"])
    assert done.returncode == 0, done.stderr
    place.names["--against builtin:clip"] = f"--against {folder / 'model'}"
    yield place
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in HERE if "tensorboard" not in command])
def test_commands_do_what_they_say(command: str, place: Place) -> None:
    arguments = place.arguments(command)
    if "--to" in arguments and arguments[2] == "upop_ray.export":
        arguments.append("--overwrite")
    if arguments[2] == "upop_ray.bench":
        # compiling takes minutes
        arguments += [] if "--backends" in arguments else ["--backends", "eager"]
    done = place.run(arguments)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr and done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("code", python_blocks())
def test_python_runs(code: str, place: Place) -> None:
    assert "HASH" in code
    done = place.run(["python", "-c", code.replace("HASH", place.names["HASH"]) + "print(type(model).__name__)"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["SlicedCLIPModel"]


@pytest.mark.slow
@pytest.mark.parametrize("command", FIRST)
def test_the_first_commands_run_the_builtin_experiment(command: str, place: Place) -> None:
    """In a checkout whose built-in experiment is a tiny one."""
    checkout = place.folder / "checkout"
    if not checkout.exists():
        (checkout / "experiments").mkdir(parents=True)
        (checkout / "upop_ray").symlink_to(REPOSITORY / "upop_ray")
        values = tiny_values(place.folder, name="builtin_clip", store="results", sweep={"ratios": [0.4]})
        (checkout / "experiments" / "builtin_clip.yaml").write_text(yaml.safe_dump(values))
    if command == "make sweep":
        shown = subprocess.run(["make", "-n", "sweep"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        (command,) = [line for line in shown.stdout.splitlines() if "-m upop_ray" in line]
    here = replace(place, folder=checkout, environment=place.environment | {"PYTHONPATH": str(checkout)})
    done = here.run(["python", *shlex.split(command)[1:]])
    assert done.returncode == 0, done.stderr
    assert f"models: {checkout}/results/points" in done.stdout and "1 points finished" in done.stdout
    assert (checkout / "results" / "sweeps" / "builtin_clip" / "experiment.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in HERE if "tensorboard" in command])
def test_tensorboard_opens(command: str, place: Place) -> None:
    words = place.arguments(command)
    settings = dict(word.split("=", 1) for word in words if word.startswith("FSSPEC_"))
    line = [str(Path(sys.executable).parent / "tensorboard"), *words[words.index("tensorboard") + 1 :], "--port", "0"]
    shown = subprocess.Popen(
        line,
        cwd=place.folder,
        env=place.environment | settings,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert shown.stderr is not None
        end = time.monotonic() + 120
        seen = ""
        while "http://" not in seen and time.monotonic() < end and shown.poll() is None:
            seen += shown.stderr.readline()
        assert "http://" in seen, seen
    finally:
        shown.kill()
        shown.wait()
