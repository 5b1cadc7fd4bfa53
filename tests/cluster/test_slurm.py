"""cluster/slurm.sh with programs that stand in for Slurm and Ray: what is started, and what a signal does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"
PROGRAMS = {
    # runs the command as srun would, without its own options
    "srun": """
        echo "srun $*" >> "$NOTES"
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
    """,
    "scontrol": """
        echo "scontrol $*" >> "$NOTES"
        [[ $1 != show ]] || printf 'localhost\\nworker\\n'
    """,
    "ray": """
        [[ $1 != status ]] || printf 'Idle:\\n 1 node_a\\n 1 node_b\\n'
        [[ $1 == start ]] || exit 0
        stat -c %a "$RAY_AUTH_TOKEN_PATH" > "$NOTES.mode"
        exec sleep 60
    """,
    "python": """
        if [[ $1 == -c ]]; then exec {python} "$@"; fi
        echo "python $*" >> "$NOTES"
        trap 'echo saved >> "$NOTES"; exit 130' TERM
        for _ in $(seq "$SWEEP_TENTHS"); do sleep 0.1; done
    """,
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in PROGRAMS.items():
        (programs / name).write_text("#!/usr/bin/env bash\n" + text.replace("{python}", sys.executable))
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f'export PATH="{programs}:$PATH"\n')
    slurm = {"JOB_ID": "7", "JOB_NUM_NODES": "2", "JOB_NODELIST": "localhost,worker", "CPUS_PER_TASK": "4"}
    return {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in slurm.items()},
        "UPOP_VENV": str(tmp_path / "venv"),
        "HOME": str(tmp_path),
        "NOTES": str(tmp_path / "notes"),
    }


def begin(environment: dict[str, str], tenths: int) -> "subprocess.Popen[bytes]":
    command = ["bash", str(SCRIPT), "my.yaml", "sweep.ratios=[0.3, 0.5]"]
    return subprocess.Popen(command, env={**environment, "SWEEP_TENTHS": str(tenths)}, start_new_session=True)


def notes(environment: dict[str, str]) -> str:
    path = Path(environment["NOTES"])
    return path.read_text() if path.exists() else ""


def test_all_nodes_join_the_sweep_runs_and_nothing_is_left(environment: dict[str, str]) -> None:
    job = begin(environment, tenths=5)
    assert job.wait(timeout=30) == 0
    text = notes(environment)
    assert "--nodes=1 --ntasks=1 --nodelist=localhost ray start --block --num-cpus=4 --num-gpus=0 --head" in text
    assert "--nodes=1 --ntasks=1 --exclude=localhost ray start" in text and "--address=127.0.0.1:20007" in text
    assert "python -m upop_ray.sweep my.yaml sweep.ratios=[0.3, 0.5]" in text and "requeue" not in text
    assert Path(environment["NOTES"] + ".mode").read_text() == "600\n"
    assert not list(Path(environment["HOME"]).glob(".upop_ray/slurm-*"))


def test_before_the_time_limit_the_sweep_saves_and_the_job_is_queued_again(environment: dict[str, str]) -> None:
    job = begin(environment, tenths=600)
    deadline = time.monotonic() + 20
    while "upop_ray.sweep" not in notes(environment):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 130
    assert notes(environment).splitlines()[-2:] == ["saved", "scontrol requeue 7"]
