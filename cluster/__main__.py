"""Clusters by command: ``python -m cluster up | status | submit | logs | down``; ``make`` calls it."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from cluster import jobs, launcher, local
from cluster.errors import ClusterError
from cluster.state import Asked, Record, State

USER_ERROR = 2


def main() -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args()
    commands = _LAUNCHED if options.cluster else _HERE
    return commands[options.command](options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description="Ray clusters for sweeps.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring a cluster up: on this machine, or that of a Ray cluster YAML")
    up.add_argument("--nodes", type=_count, default=2, help="workers beside the head (default: 2)")
    up.add_argument("--cpus", type=_count, help="of each worker (default: this machine's, shared evenly)")
    up.add_argument("--store", default="results", help="folder or s3://bucket/prefix that TensorBoard shows")
    up.add_argument("--host", default="127.0.0.1", help="where dashboard and TensorBoard listen (default: loopback)")
    submit = commands.add_parser("submit", help="submit a sweep and show its log until it ends")
    submit.add_argument("experiment", type=Path)
    submit.add_argument("overrides", nargs="*", metavar="setting=value")
    logs = commands.add_parser("logs", help="log of a job, and where its replicas' are")
    logs.add_argument("job", nargs="?", help="submission id (default: the latest)")
    for name in ("status", "down"):
        commands.add_parser(name)
    for command in commands.choices.values():
        command.add_argument("--cluster", type=Path, help="Ray cluster YAML (default: this machine)")
        command.add_argument("--state", type=Path, default=Path(".cluster"), help=argparse.SUPPRESS)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _up(options: argparse.Namespace) -> int:
    record = Record(options.state)
    cpus = options.cpus or max(1, (os.cpu_count() or 1) // options.nodes)
    store = options.store if "://" in options.store else str(Path(options.store).expanduser().resolve())
    with record.held():
        print(local.up(record, Asked(options.nodes, cpus, store, options.host)))
    _show_addresses(local.running(record), options.state)
    return 0


def _status(options: argparse.Namespace) -> int:
    state = local.running(Record(options.state))
    for name in state.asked.names():
        print(f"{name:12} {'running' if state.alive(name) else 'ENDED'}  pid {state.processes[name].pid}")
    nodes = local.alive_nodes(state.access())
    total = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    print(f"Ray          {len(nodes)} nodes alive, {total['CPU']:g} CPU, {total['GPU']:g} GPU")
    for job in jobs.submitted(state.access()):
        print(f"job          {job['submission_id']} {job['status']}  {job['entrypoint']}")
    _show_addresses(state, options.state)
    if state.missing():
        print("something of it has ended: make cluster-up starts that again")
        return 1
    return 0


def _submit(options: argparse.Namespace) -> int:
    state = local.running(Record(options.state))
    return jobs.submit(state.access(), options.experiment, options.overrides, state.asked.store)


def _logs(options: argparse.Namespace) -> int:
    state = local.running(Record(options.state))
    job = jobs.found(state.access(), options.job)
    jobs.show_logs(state.access(), job["submission_id"])
    for file in local.replica_logs(state, job["job_id"] or "-"):
        print(f"replica log: {file}")
    return 0


def _down(options: argparse.Namespace) -> int:
    record = Record(options.state)
    with record.held():
        print(local.down(record))
    return 0


def _show_addresses(state: State, folder: Path) -> None:
    settings = folder.resolve() / "environment"
    exported = state.access().settings().items()
    settings.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exported))
    print("submit       make submit EXPERIMENT=experiments/builtin_clip.yaml")
    store = shlex.quote(f"store={state.asked.store}")
    print(f"  elsewhere  . {settings}; ray job submit --working-dir . -- python -m upop_ray.sweep my.yaml {store}")
    print(f"dashboard    {state.access().address}  (asks for the token: cat {state.token})")
    print(f"tensorboard  http://{state.asked.reached_at()}:{state.tensorboard}  (shows {state.asked.store})")


def _forwarded_submit(options: argparse.Namespace) -> int:
    with launcher.forwarded(options.cluster) as access:
        return jobs.submit(access, options.experiment, options.overrides, store=None)


def _forwarded_logs(options: argparse.Namespace) -> int:
    with launcher.forwarded(options.cluster) as access:
        job = jobs.found(access, options.job)
        jobs.show_logs(access, job["submission_id"])
        folder = options.state / "logs" / job["submission_id"]
        for file in jobs.fetch_replica_logs(access, job["job_id"] or "-", folder):
            print(f"replica log: {file}")
    return 0


_HERE: dict[str, Callable[[argparse.Namespace], int]] = {
    "up": _up,
    "status": _status,
    "submit": _submit,
    "logs": _logs,
    "down": _down,
}
_LAUNCHED: dict[str, Callable[[argparse.Namespace], int]] = {
    "up": lambda options: launcher.up(options.cluster),
    "status": lambda options: launcher.status(options.cluster),
    "submit": _forwarded_submit,
    "logs": _forwarded_logs,
    "down": lambda options: launcher.down(options.cluster),
}

if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
