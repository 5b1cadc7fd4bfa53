"""The sweep: Ray Tune runs points on warm replicas, Optuna proposes, the store decides what is missing."""

import logging
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import yaml
from ray import tune

from upop_ray.config import Experiment, replaced
from upop_ray.distributed.halving import HalvingByGroup
from upop_ray.distributed.plan import Member, cells, check_space, finished
from upop_ray.distributed.proposals import Proposals
from upop_ray.distributed.trial import PointTrial, resources
from upop_ray.errors import ConfigError
from upop_ray.reporting.curves import Curves
from upop_ray.reporting.points import PointRow, read_points
from upop_ray.store import Store, SweepPaths
from upop_ray.terminal import console
from upop_ray.tracking import quieten
from upop_ray.training.finish import versions
from upop_ray.training.prepared import prepare

#: what Ray and Tune would otherwise print or write beside our own output
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    # most reports of a point come without a validation metric
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended.

    :param rows: its points as the store has them
    :param interrupted: it was stopped from outside
    """

    rows: list[PointRow]
    reused: int
    computed: int
    interrupted: bool
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 when every point is settled, 1 when some failed, 130 when it was interrupted."""
        if self.interrupted:
            return 130
        return 1 if any(row.state in ("failed", "proposed") for row in self.rows) else 0


def run_sweep(experiment: Experiment) -> SweepResult:
    """Compute what is missing of a sweep.

    :raises UpopError: before anything is started, when something in the experiment cannot work
    """
    start = time.monotonic()
    quieten()
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    experiment = _with_absolute_paths(experiment)
    check_space(experiment)
    prepare(experiment).task()
    store = Store(experiment.store)
    store.write(SweepPaths(experiment.name).experiment, _as_asked(experiment).encode())
    report = _Report(experiment, store)
    proposals = Proposals(experiment, store, report.changed)
    computed = proposals.remaining()
    report.begin(len(proposals.reused), computed)
    interrupted = False
    if computed:
        interrupted = _tune(experiment, proposals, report)
    report.end()
    rows = read_points(store, experiment.name)
    wanted = set(proposals.members)
    rows = [row for row in rows if row.hash in wanted]
    return SweepResult(rows, len(proposals.reused), computed, interrupted, time.monotonic() - start)


def check_resources(experiment: Experiment) -> None:
    """Make sure that a replica can ever be placed.

    :raises ConfigError: it asks for more than the cluster, or any node of it, has
    """
    replica = experiment.replica
    wanted = {"CPU": ("cpus_per_worker", replica.cpus_per_worker), "GPU": ("gpus_per_worker", replica.gpus_per_worker)}
    for key, (field, each) in wanted.items():
        nodes = [node["Resources"].get(key, 0.0) for node in ray.nodes() if node["Alive"]]
        if not each:
            continue
        largest = max(nodes, default=0.0)
        if largest < each:
            raise ConfigError(f"replica.{field}", f"{each:g} asked, the largest node has {largest:g} {key}", "lower it")
        places = sum(int(have // each) for have in nodes)
        if places < replica.workers:
            problem = f"{replica.workers} workers of {each:g} {key} asked, the cluster has room for {places}"
            raise ConfigError("replica.workers", problem, f"use at most {places}, or a smaller replica.{field}")


def _tune(experiment: Experiment, proposals: Proposals, report: tune.Callback) -> bool:
    """Run the trials; returns whether it was interrupted."""
    sweep = experiment.sweep
    started_here = not ray.is_initialized()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if started_here:
            _connect()
        check_resources(experiment)
        with tempfile.TemporaryDirectory(prefix="upop-tune-") as folder:
            tuner = tune.Tuner(
                tune.with_resources(PointTrial, resources(experiment)),
                tune_config=tune.TuneConfig(
                    search_alg=proposals,
                    scheduler=HalvingByGroup(sweep.early_stopping) if sweep.early_stopping else None,
                    num_samples=proposals.remaining(),
                    max_concurrent_trials=sweep.max_concurrent or None,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=folder,
                    verbose=0,
                    callbacks=[report],
                    failure_config=tune.FailureConfig(max_failures=sweep.retries),
                ),
            )
            tuner.fit()
        return False
    except KeyboardInterrupt:
        return True
    finally:
        signal.signal(signal.SIGTERM, previous)
        if started_here:
            ray.shutdown()


def _with_absolute_paths(experiment: Experiment) -> Experiment:
    """Workers run in folders of their own, so what is relative to this one is made absolute."""
    changes = {"store": Store(experiment.store).uri}
    for field, path in (("model.path", experiment.model.path), ("data.path", experiment.data.path)):
        if Path(path).is_dir():
            changes[field] = str(Path(path).resolve())
    return replaced(experiment, changes)


def _connect() -> None:
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS", "local")
        reason = str(error).strip().splitlines()[0]
        cure = "start the cluster, or unset RAY_ADDRESS to run on this machine alone"
        raise ConfigError("RAY_ADDRESS", f"cannot reach a Ray cluster at {address!r} ({reason})", cure) from error


class _Report(tune.Callback):
    """Says what happens to the points, and keeps the curves in TensorBoard."""

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self._experiment, self._store = experiment, store
        self._curves = Curves(store, experiment.name)
        self._begun: dict[str, float] = {}
        self._total = self._done = 0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never made, and open event files cannot be pickled."""
        return {}

    def begin(self, reused: int, missing: int) -> None:
        self._total = missing
        name = self._experiment.name
        console.print(f"sweep {name}: {reused} points are in the store already, {missing} to compute")
        console.print(f"tensorboard --logdir {self._store.path(SweepPaths(name).tensorboard)}")
        self._update()

    def changed(self, member: Member) -> None:
        self._done += 1
        manifest = finished(self._store, member)
        took = f"{time.monotonic() - self._begun.get(member.label, time.monotonic()):.0f} s"
        place = f"[{self._done}/{self._total}]"
        if manifest is None:
            console.print(f"{member.state:8} {member.label} {place} {took} {member.cause}", markup=False)
        else:
            headline, metrics, dense = manifest["headline"], manifest["metrics"], manifest["dense"]
            console.print(
                f"finished {member.label} {place} {took}  {manifest['parameters']:,} parameters, validation {headline} "
                f"{metrics['validation'][headline]:.2f} (dense {dense['validation'][headline]:.2f})",
                markup=False,
            )
        self._update()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        label = trial.config["label"]
        self._begun.setdefault(label, time.monotonic())
        console.print(f"started  {label}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        console.print(f"again    {trial.config['label']}: its replica was lost; it goes on from its last checkpoint")

    def end(self) -> None:
        self._curves.update(read_points(self._store, self._experiment.name))
        self._curves.close()

    def _update(self) -> None:
        rows = read_points(self._store, self._experiment.name)
        settled = {(row.method, row.ratio, row.seed) for row in rows if row.state != "proposed"}
        pending = [(c.method, c.ratio) for c in cells(self._experiment) if (c.method, c.ratio, c.seed) not in settled]
        pending += [(row.method, row.ratio) for row in rows if row.state == "proposed"]
        self._curves.update(rows, pending)


def _as_asked(experiment: Experiment) -> str:
    header = "".join(f"# {name} {version}\n" for name, version in versions().items())
    return header + yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt
