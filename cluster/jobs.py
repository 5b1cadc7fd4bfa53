"""Jobs of a cluster: what is sent, whether it is small enough, and the logs."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from cluster.access import Access
from cluster.errors import ClusterError

#: Ray takes packages of up to 512 MiB; what is larger than this is there by mistake, and goes to every node
LARGEST_MIB = 100
_RAY = Path(sys.executable).with_name("ray")


def submit(access: Access, experiment: Path, arguments: Sequence[str], store: str | None) -> int:
    """Submit a sweep, as ``ray job submit --working-dir . -- python -m upop_ray.sweep`` does, and show its log.

    :param store: of the cluster, which takes the place of a relative one
    :return: 0 when the job succeeded, 1 when not
    :raises ClusterError: before anything is sent
    """
    if not experiment.is_file():
        raise ClusterError(f"{experiment}: missing; give the path of an experiment in EXPERIMENT=")
    folder, name = sent_folder(experiment)
    changes = [*arguments, *store_argument(experiment, arguments, store)]
    check_size(folder)
    sweep = ["python", "-m", "upop_ray.sweep", name, *changes]
    # the client and not the command, which quotes an argument as Windows does
    client = _client(access)
    with _reaching(access):
        job = client.submit_job(entrypoint=shlex.join(sweep), runtime_env={"working_dir": str(folder)})
    print(f"{job}: Ctrl-C leaves it running; then: make logs JOB={job}, ray job stop {job}", flush=True)
    show_logs(access, job)
    with _reaching(access):
        return _show_end(client.get_job_info(job), job)


def sent_folder(experiment: Path) -> tuple[Path, str]:
    """The folder that goes with a job, and the experiment in it: this one if it holds the file, or the file's own."""
    path = experiment.resolve()
    folder = Path.cwd() if path.is_relative_to(Path.cwd()) else path.parent
    return folder, path.relative_to(folder).as_posix()


def store_argument(experiment: Path, arguments: Sequence[str], store: str | None) -> list[str]:
    """The override that puts results where they stay: a job's own folder is removed after it.

    :raises ClusterError: the store is relative, and the cluster has none
    """
    asked = [argument.partition("=")[2] for argument in arguments if argument.startswith("store=")]
    chosen = asked[-1] if asked else _stated_store(experiment)
    if "://" in chosen or Path(chosen).is_absolute():
        return []
    if store is None:
        cure = "write store: s3://bucket/prefix, or a folder that all nodes mount"
        raise ClusterError(f"store: {chosen!r} is a folder of one node, and goes with it; {cure}")
    return [f"store={store}"]


def check_size(folder: Path) -> None:
    """Make sure that the folder is small, without what Ray itself leaves out.

    :raises ClusterError: names the largest of its parts
    """
    parts: dict[str, int] = {}
    for file in packed_files(folder):
        top = file.relative_to(folder).parts[0]
        parts[top] = parts.get(top, 0) + file.stat().st_size
    if sum(parts.values()) <= LARGEST_MIB << 20:
        return
    largest = sorted(parts, key=lambda part: parts[part], reverse=True)[:3]
    named = ", ".join(f"{part} {parts[part] / 2**20:.0f} MiB" for part in largest)
    size = f"{sum(parts.values()) / 2**20:.0f} MiB would go to every node, at most {LARGEST_MIB} MiB should"
    raise ClusterError(f"{folder}: {size} ({named}); list what the sweep does not need in {folder / '.rayignore'}")


def packed_files(folder: Path) -> list[Path]:
    """The files that Ray would send with a job, by its own rules (.gitignore, .rayignore and its defaults)."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env import packaging

    quiet = packaging.logging.getLogger("upop.packing")
    quiet.disabled = True
    files: list[Path] = []
    excludes = [packaging._get_excludes(folder, get_runtime_env_default_excludes())]
    packaging._dir_travel(folder, excludes, files.append, include_gitignore=True, logger=quiet)
    return [path for path in files if path.is_file()]


def show_logs(access: Access, job: str) -> None:
    """Show the log of a job, following it while it runs."""
    command = [str(_RAY), "job", "logs", "--follow", job]
    subprocess.run(command, env=access.environment(), check=False)


def fetch_replica_logs(access: Access, ray_job: str, folder: Path) -> list[Path]:
    """Copy what trials and training workers of a job printed from the nodes that are up, without empty files.

    :param ray_job: Ray's own number of the job, 8 hexadecimal digits
    :param folder: gets a folder for each node, called after its address
    """
    copied: list[Path] = []
    nodes = access.get("/api/v0/nodes?limit=10000")["data"]["result"]["result"]
    for node in [node for node in nodes if node["state"] == "ALIVE"]:
        asked = f"node_id={node['node_id']}"
        kinds = access.get(f"/api/v0/logs?{asked}&glob=worker-*-{ray_job}-*")["data"]["result"]
        for name in sorted(name for names in kinds.values() for name in names):
            content = access.read(f"/api/v0/logs/file?{asked}&filename={quote(name)}&lines=-1")
            if content:
                copied.append(folder / node["node_ip"] / Path(name).name)
                copied[-1].parent.mkdir(parents=True, exist_ok=True)
                copied[-1].write_bytes(content)
    return copied


def submitted(access: Access) -> list[dict[str, Any]]:
    """Submitted jobs, the latest last."""
    jobs: list[dict[str, Any]] = [job for job in access.get("/api/jobs/") if job["submission_id"]]
    return sorted(jobs, key=lambda job: job["start_time"] or 0)


def found(access: Access, job: str | None) -> dict[str, Any]:
    """A submitted job by its submission id, or the latest.

    :raises ClusterError: there is none
    """
    jobs = submitted(access)
    if not jobs:
        raise ClusterError("no job has been submitted; make submit EXPERIMENT=experiments/builtin_clip.yaml")
    chosen = [known for known in jobs if job in (None, known["submission_id"])]
    if chosen:
        return chosen[-1]
    raise ClusterError(f"{job}: no such job; the latest is {jobs[-1]['submission_id']}, make cluster-status shows all")


def _client(access: Access) -> Any:
    from ray.job_submission import JobSubmissionClient

    with _reaching(access):
        return JobSubmissionClient(access.address, headers=access.headers())


@contextmanager
def _reaching(access: Access) -> Iterator[None]:
    """Whatever keeps the job server from answering, in one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except (ConnectionError, RuntimeError, AuthenticationError) as error:
        reason = " ".join(str(error).split())
        raise ClusterError(f"{access.address}: {reason}; see make cluster-status") from error


def _show_end(job: Any, name: str) -> int:
    code = "" if job.driver_exit_code is None else f", exit code {job.driver_exit_code}"
    print(f"{name}: {job.status.value.lower()}{code}")
    return 0 if job.status.value == "SUCCEEDED" else 1


def _stated_store(experiment: Path) -> str:
    try:
        values = yaml.safe_load(experiment.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{experiment}: is not YAML: {' '.join(str(error).split())}; correct the file") from error
    return str(values.get("store", "results")) if isinstance(values, dict) else "results"
