"""Trials whose own process is silent are ended; others are left alone."""

from types import SimpleNamespace
from typing import Any

import pytest

from upop_ray.distributed import pulse
from upop_ray.distributed.pulse import SilentTrials

BEATS = 5.0


class Cluster:
    """Stands for the cluster's store, its clock, and what is ended in it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.beats, self.killed = 0.0, dict[bytes, bytes](), list[str]()
        store = SimpleNamespace(_internal_kv_get=lambda key, namespace: self.beats.get(key))
        context = SimpleNamespace(get_job_id=lambda: "job")
        patch.setattr(pulse, "internal_kv", store)
        patch.setattr(pulse.time, "monotonic", lambda: self.now)
        patch.setattr(pulse.ray, "get_runtime_context", lambda: context)
        patch.setattr(pulse.ray, "kill", lambda actor: self.killed.append(actor._actor_id.hex()))

    def look(self, listener: SilentTrials, trials: list[Any]) -> None:
        self.now += BEATS
        listener.on_step_end(0, trials)


def trial(name: str, status: str = "RUNNING") -> Any:
    actor = SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: name))
    return SimpleNamespace(
        status=status, config={"label": name}, temporary_state=SimpleNamespace(ray_actor=actor), trial_id=name
    )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_who_stops_beating_is_ended_once_and_named(cluster: Cluster) -> None:
    said: list[str] = []
    listener, trials = SilentTrials(20.0, said.append), [trial("alive"), trial("stopped")]
    cluster.beats = {b"job/alive": b"1", b"job/stopped": b"1"}
    for look in range(10):
        cluster.beats[b"job/alive"] = str(look).encode()
        cluster.look(listener, trials)
        if cluster.killed:
            break
    assert cluster.killed == ["stopped"]
    # first heard at 5 s, and not for more than 20 s since
    assert cluster.now == 30.0
    assert said == [
        "silent   stopped: its trial gave no sign of life for replica.heartbeat = 20 s; it is ended and starts anew"
    ]


def test_who_never_beat_or_does_not_run_is_left_alone(cluster: Cluster) -> None:
    listener = SilentTrials(20.0, lambda line: None)
    cluster.beats = {b"job/waits": b"1"}
    for _ in range(10):
        cluster.look(listener, [trial("starts"), trial("waits", "PENDING")])
    assert cluster.killed == []


def test_time_in_which_nobody_listened_does_not_count(cluster: Cluster) -> None:
    listener, trials = SilentTrials(20.0, lambda line: None), [trial("one")]
    cluster.beats = {b"job/one": b"1"}
    cluster.look(listener, trials)
    cluster.now += 1000.0
    cluster.look(listener, trials)
    assert cluster.killed == []
