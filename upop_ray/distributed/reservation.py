"""What a sweep has reserved of the cluster, whether points are computed on it or not."""

import logging
import time
import uuid
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import placement_group_table

from upop_ray.distributed.cluster import KINDS
from upop_ray.errors import StoreError
from upop_ray.store import Store, SweepPaths

_LOG = logging.getLogger(__name__)
SCHEMA_VERSION = 1
#: seconds between two looks at the placement groups, and between two notes in the store
_LOOK, _NOTE = 0.5, 30.0
#: seconds that an outage of the store may hold up the last note
_PATIENCE = 10.0


class Reservation(tune.Callback):
    """Adds up what the placement groups of this job hold, and notes it in the store.

    Points know how long they were computed; the rest is start-up of trials and replicas that wait for a point.
    """

    def __init__(self, store: Store, sweep: str) -> None:
        self._store = store.hasty(_PATIENCE)
        self._path = f"{SweepPaths(sweep).reservations}/{uuid.uuid4().hex[:12]}.json"
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._held = dict.fromkeys(KINDS, 0.0)
        self._begun = time.time()
        self._looked = time.monotonic()
        self._noted = self._looked

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never made."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        before, self._held = self._held, _held()
        # what has changed has done so somewhere between the two looks
        self._add({kind: (before[kind] + self._held[kind]) / 2 for kind in KINDS}, now)
        if now - self._noted >= _NOTE:
            self._note()

    def end(self) -> None:
        """The trials have ended, and held what they had until now."""
        self._add(self._held, time.monotonic())
        self._note()

    def _add(self, held: dict[str, float], now: float) -> None:
        for kind in KINDS:
            self._seconds[kind] += held[kind] * (now - self._looked)
        self._looked = now

    def _note(self) -> None:
        self._noted = time.monotonic()
        content = {
            "schema_version": SCHEMA_VERSION,
            "begun": self._begun,
            "cpu_seconds": self._seconds["CPU"],
            "gpu_seconds": self._seconds["GPU"],
        }
        try:
            self._store.write_json(self._path, content)
        except StoreError as error:
            _LOG.warning(f"reserved hours are not noted: {error}")


def _held() -> dict[str, float]:
    """CPUs and GPUs of the placement groups of this job that have been placed."""
    # the id of a placement group ends with that of its job
    job = ray.get_runtime_context().get_job_id()
    bundles = [
        bundle
        for id, group in placement_group_table().items()
        if id.endswith(job) and group["state"] == "CREATED"
        for bundle in group["bundles"].values()
    ]
    return {kind: sum(bundle.get(kind, 0.0) for bundle in bundles) for kind in KINDS}
