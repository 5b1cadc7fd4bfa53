"""Signs of life of the trials' own processes, which answer nothing while a step runs, by way of the cluster's store."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import tune
from ray.experimental import internal_kv

#: seconds between two signs of life, and between two looks at them
_BEAT = 5.0
_NAMESPACE = b"upop_ray_pulse"


class Pulse:
    """Beats for this actor's process until it is stopped."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self._key = _key(context.get_job_id(), context.get_actor_id() or "")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No further beat."""
        self._stopped.set()
        self._thread.join(_BEAT)

    def _beat(self) -> None:
        count = 0
        while not self._stopped.wait(_BEAT if count else 0.0):
            count += 1
            try:
                internal_kv._internal_kv_put(self._key, str(count).encode(), namespace=_NAMESPACE)
            except (ray.exceptions.RayError, RuntimeError, OSError):
                # the head is away: everything waits for it, and so does who listens
                continue


class SilentTrials(tune.Callback):
    """Ends trials whose own process gives no sign of life, so that Ray Tune starts them anew."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        """Listen.

        :param seconds: that a trial's process may be silent
        """
        self._seconds, self._say = seconds, say
        self._looked = time.monotonic()
        self._heard: dict[str, tuple[bytes, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never made."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if now - self._looked < _BEAT:
            return
        # nobody listened while the driver itself stood still
        paused, self._looked = now - self._looked - _BEAT, now
        self._heard = {actor: (beat, at + paused) for actor, (beat, at) in self._heard.items()}
        for trial in trials:
            actor = trial.temporary_state.ray_actor if trial.status == "RUNNING" else None
            if actor is not None and self._silent(actor, now):
                label = trial.config["label"]
                self._say(
                    f"silent   {label}: its trial gave no sign of life for replica.heartbeat = {self._seconds:g} s; "
                    "it is ended and starts anew"
                )
                ray.kill(actor)

    def on_experiment_end(self, trials: Sequence[Any], **info: Any) -> None:
        internal_kv._internal_kv_del(
            _key(ray.get_runtime_context().get_job_id(), ""), del_by_prefix=True, namespace=_NAMESPACE
        )

    def _silent(self, actor: Any, now: float) -> bool:
        """Whether an actor's beat has not changed for too long; one that never beat has not started yet."""
        name = actor._actor_id.hex()
        beat = internal_kv._internal_kv_get(_key(ray.get_runtime_context().get_job_id(), name), namespace=_NAMESPACE)
        if beat is None:
            return False
        before, at = self._heard.get(name, (b"", now))
        if beat != before:
            self._heard[name] = (beat, now)
            return False
        if now - at <= self._seconds:
            return False
        del self._heard[name]
        return True


def _key(job: str, actor: str) -> bytes:
    return f"{job}/{actor}".encode()
