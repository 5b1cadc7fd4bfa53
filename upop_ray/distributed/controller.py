"""The sweep: Ray Tune runs points on warm replicas, Optuna proposes, the store decides what is missing."""

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import yaml
from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from upop_ray.config import Experiment
from upop_ray.distributed.announcer import Announcer
from upop_ray.distributed.checkup import check_places, examine_cluster
from upop_ray.distributed.cluster import connected, nodes, with_absolute_paths
from upop_ray.distributed.halving import HalvingByGroup
from upop_ray.distributed.plan import check_space
from upop_ray.distributed.proposals import Proposals
from upop_ray.distributed.pulse import SilentTrials
from upop_ray.distributed.replica import give_back_all
from upop_ray.distributed.reservation import Reservation
from upop_ray.distributed.trial import PointTrial, resources
from upop_ray.errors import UpopError
from upop_ray.reporting.points import PointRow
from upop_ray.store import Store, SweepPaths
from upop_ray.terminal import console
from upop_ray.tracking import quieten
from upop_ray.training.budget import check_ratios
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
#: losses of nodes and of trials' own actors, for which no point is to blame, that one point survives
_LOSSES = 100
#: seconds in which points are saved when the sweep is told to end
_GRACE = 20.0
#: seconds that a sweep waits for what its nodes say of themselves before it starts
_NODE_SECONDS = 20.0


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
    # Tune would put credentials into runtime environments, which Ray writes to logs and shows in its dashboard
    ENV_VARS_TO_PROPAGATE.difference_update({name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")})
    experiment = with_absolute_paths(experiment)
    check_space(experiment)
    prepared = prepare(experiment)
    check_ratios(experiment, prepared.spec, prepared.model)
    prepared.task()
    store = Store(experiment.store, experiment.store_timeout)
    store.check()
    store.write(SweepPaths(experiment.name).experiment, _as_asked(experiment).encode())
    announcer = Announcer(experiment, store)
    proposals = Proposals(experiment, store, announcer.changed)
    computed = proposals.remaining()
    announcer.begin(len(proposals.reused), computed)
    interrupted = bool(computed) and _tune(experiment, proposals, announcer)
    announcer.end(interrupted)
    rows = announcer.rows(proposals.members)
    return SweepResult(rows, len(proposals.reused), computed, interrupted, time.monotonic() - start)


def _tune(experiment: Experiment, proposals: Proposals, announcer: Announcer) -> bool:
    """Run the trials; returns whether it was interrupted."""
    with connected():
        # after Ray, which takes the signal for itself
        previous = signal.signal(signal.SIGTERM, _interrupt)
        reservation = Reservation(Store(experiment.store, experiment.store_timeout), experiment.name)
        try:
            _examine(experiment)
            with tempfile.TemporaryDirectory(prefix="upop-tune-") as folder:
                tuner = _tuner(experiment, proposals, [announcer, reservation], folder)
                with announcer.view:
                    tuner.fit()
            return False
        except KeyboardInterrupt:
            _wind_up(proposals.running)
            return True
        finally:
            reservation.end()
            signal.signal(signal.SIGTERM, previous)


def _examine(experiment: Experiment) -> None:
    """Look at the cluster before points are placed on it.

    :raises UpopError: a point could not run, or not on every node
    """
    if len(nodes()) == 1:
        # the driver's own machine, from which store and inputs have been seen
        check_places(experiment)
        return
    for check in examine_cluster(experiment, _NODE_SECONDS):
        if check.level == "wrong":
            raise UpopError(f"{check.name}: {check.found}; {check.cure}")
        if check.level == "unknown":
            console.print(f"{check.name}: {check.found}; {check.cure}")


def _tuner(experiment: Experiment, proposals: Proposals, listeners: list[tune.Callback], folder: str) -> tune.Tuner:
    sweep = experiment.sweep
    return tune.Tuner(
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
            callbacks=[*listeners, SilentTrials(experiment.replica.heartbeat, _say)],
            failure_config=tune.FailureConfig(max_failures=_LOSSES),
            # the store holds all there is; what Tune itself saves would need a folder that all nodes have
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def _wind_up(running: int) -> None:
    """Have the points that run saved, unless they take too long or the user insists."""
    if not running:
        return
    console.print(f"stopping: the points that run are being saved (at most {_GRACE:.0f} s; again to stop at once)")
    try:
        saved = give_back_all(_GRACE)
    except KeyboardInterrupt:
        return
    console.print(f"saved by {saved} workers")


def _say(line: str) -> None:
    console.print(line)


def _as_asked(experiment: Experiment) -> str:
    header = "".join(f"# {name} {version}\n" for name, version in versions().items())
    return header + yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt
