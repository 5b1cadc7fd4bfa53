"""A trial of Ray Tune: one point on one replica, which is kept warm for the next point."""

import signal
import time
import traceback
from types import FrameType
from typing import Any

import ray
from ray import tune

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.distributed.checkup import require_same
from upop_ray.distributed.losses import NodeLost, ReplicaError
from upop_ray.distributed.pulse import Pulse
from upop_ray.distributed.replica import Replica, replica_bundles
from upop_ray.errors import UpopError
from upop_ray.reporting.point_board import PointBoard
from upop_ray.store import PointPaths, Store
from upop_ray.tracking import quieten
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.occupation import Held, Occupation
from upop_ray.training.prepared import content_addresses
from upop_ray.training.progress import GivenBack, Progress


def resources(experiment: Experiment) -> tune.PlacementGroupFactory:
    """Resources of a trial: a bundle for the trial's own actor, and one for each worker of its replica."""
    return tune.PlacementGroupFactory(replica_bundles(experiment.replica))


class PointTrial(tune.Trainable):
    """Computes the point of ``config["experiment"]``; ``config["label"]`` names its TensorBoard run.

    Each call of :meth:`step` goes on to the next report of the point. An error that belongs to the point ends the
    trial with ``state: failed`` and its cause. After a crash of a worker new ones go on from the last checkpoint here,
    ``sweep.retries`` times. The loss of a node, and a notice to leave it (SIGTERM, or a node that drains), raise: Tune
    places the trial anew, which does not count against the point.
    """

    def setup(self, config: dict[str, Any]) -> None:
        quieten()
        self._pulse = Pulse()
        self._replica: Replica | None = None
        self._board: PointBoard | None = None
        self._occupation: Occupation | None = None
        self._end = signal.signal(signal.SIGTERM, self._told_to_leave)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end_occupation("stopped")
        self._end_board()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            progress = self._known() or self._advanced()
        except (NodeLost, GivenBack) as error:
            self._end_occupation("given back" if isinstance(error, GivenBack) else "lost")
            self._drop_replica()
            raise
        except ReplicaError as error:
            return self._crashed(str(error))
        except UpopError as error:
            return self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a defect of the point, or of the device that it is on
            return self._crashed(f"{type(error).__name__}: {error}", traceback.format_exc())
        return self._result(progress)

    def cleanup(self) -> None:
        self._pulse.stop()
        self._end_occupation("stopped")
        self._end_board()
        if self._replica is not None:
            self._replica.shut_down()
            self._replica = None

    def _begin(self, trial: dict[str, Any]) -> None:
        self._experiment = config.parse(trial["experiment"])
        self._label = trial["label"]
        self._versions = trial["versions"]
        self._attempt: Attempt | None = None
        self._crashes = 0
        self._pending = True

    def _known(self) -> Progress | None:
        """The end of a point that somebody else has finished meanwhile."""
        if not self._pending:
            return None
        path = PointPaths(content_addresses(self._experiment)[0]).manifest
        store = Store(self._experiment.store, self._experiment.store_timeout)
        if not store.exists(path):
            return None
        self._board = PointBoard(store, self._experiment, self._label)
        return Progress("finished", 1, 1, manifest=store.read_json(path))

    def _advanced(self) -> Progress:
        """The next report of the point, which is handed to the replica first if it has not been."""
        if self._pending:
            self._start()
        assert self._replica is not None
        return self._replica.advance()

    def _start(self) -> None:
        """Claim the point and hand it to the replica, starting the workers if there are none."""
        begun, experiment = time.monotonic(), self._experiment
        store = Store(experiment.store, experiment.store_timeout)
        paths = PointPaths(content_addresses(experiment)[0])
        require_same(store, experiment.name, self._versions)
        store.write_json(paths.settings, experiment.model_dump(mode="json"))
        self._attempt = Attempt.begin(store, paths)
        self._occupation = Occupation(store, paths.cost(self._attempt.number), _held(experiment), begun)
        if self._replica is None:
            group = ray.util.get_current_placement_group()
            self._replica = Replica(experiment.replica, group, first_bundle=1, outage=experiment.store_timeout)
        self._replica.start(experiment.model_dump(mode="json"), self._attempt.number)
        self._occupation.started()
        self._end_board()
        self._board = PointBoard(store, experiment, self._label)
        self._pending = False

    def _result(self, progress: Progress) -> dict[str, Any]:
        assert self._board is not None
        if self._occupation is not None:
            self._occupation.worked(progress.seconds)
        if progress.kept:
            self._board.masks(progress.step, progress.steps, progress.kept)
        self._board.log(progress.phase, progress.step, progress.metrics)
        result: dict[str, Any] = {"state": progress.phase, "step": progress.step, "done": False, "note": progress.note}
        result |= {"steps": progress.steps, "loss": progress.metrics.get("loss")}
        if progress.validation is not None:
            result |= {"epoch": progress.validation[0], "validation": progress.validation[1]}
        if progress.manifest is not None:
            self._end_occupation("finished")
            self._board.finish(progress.manifest)
            self._end_board()
            result["done"] = True
        return result

    def _crashed(self, cause: str, details: str = "") -> dict[str, Any]:
        """Go on with new workers from the last checkpoint, or set the point aside when it has crashed too often."""
        if self._attempt is not None:
            self._attempt.record_error(details or cause)
            cause += f" (traceback in the store, {self._attempt.error_path})" if details else ""
        self._crashes += 1
        if self._crashes > self._experiment.sweep.retries:
            return self._failed(f"crashed {self._crashes} times (sweep.retries), at last: {cause}")
        self._end_occupation("crashed")
        self._drop_replica()
        self._pending = True
        return {"done": False, "state": "crashed", "note": f"crash {self._crashes}: {cause}; new workers take it up"}

    def _told_to_leave(self, number: int, frame: FrameType | None) -> None:
        """The machine goes away: have the point saved; with nothing to save, or told twice, end as Ray has it."""
        if (self._replica is None or self._pending or self._replica.leaving) and callable(self._end):
            self._end(number, frame)
        elif self._replica is not None:
            self._replica.leaving = True

    def _failed(self, cause: str) -> dict[str, Any]:
        self._end_occupation("failed")
        self._drop_replica()
        return {"done": True, "state": "failed", "cause": cause}

    def _drop_replica(self) -> None:
        if self._replica is not None:
            self._replica.kill()
            self._replica = None

    def _end_occupation(self, how: str) -> None:
        if self._occupation is not None:
            self._occupation.end(how)
            self._occupation = None

    def _end_board(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _held(experiment: Experiment) -> Held:
    """The replica's devices; the sliver of a CPU that the trial's own actor has is taken from the first worker's."""
    replica = experiment.replica
    cpus, gpus = replica.workers * replica.cpus_per_worker, replica.workers * replica.gpus_per_worker
    return Held(experiment.name, cpus, gpus)
