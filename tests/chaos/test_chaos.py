"""Whatever is killed, hangs or leaves in the middle of a sweep: nothing finished is lost, nothing finished runs again,
and the points end with the metrics of an undisturbed sweep, to the bit.

``make chaos``; UPOP_CHAOS_ROUNDS (default 1) is how often each fault strikes, each time at another moment.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import LocalCluster
from tests.chaos.conftest import Found
from tests.chaos.disk import small_disk
from tests.chaos.faults import FAULTS, strike
from tests.chaos.sweep import Sweep
from tests.s3 import S3
from tests.s3_proxy import Proxy

pytestmark = pytest.mark.chaos
ROUNDS = range(int(os.environ.get("UPOP_CHAOS_ROUNDS", "1")))


@pytest.mark.parametrize("round", ROUNDS)
@pytest.mark.parametrize("place", ["folder", "s3"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_sweep_survives(
    fault: str,
    place: str,
    round: int,
    request: pytest.FixtureRequest,
    cluster: LocalCluster,
    root: Path,
    undisturbed: dict[str, Any],
    table: list[Found],
) -> None:
    name = f"{fault.replace(' ', '_')}_{round}"
    store = str(root / name) if place == "folder" else request.getfixturevalue("s3").uri(name)
    cluster.refill()
    sweep = Sweep(root, store, cluster.address)
    sweep.start()
    struck, before, saved = strike(fault, random.Random(f"{fault} {place} {round}"), cluster, sweep)
    sweep.until(lambda: sweep.resumed(saved), "checkpoint of a newer attempt")
    recovered = time.monotonic() - struck
    code = sweep.wait()
    after, results = sweep.manifests(), sweep.results()
    lost = sum(name not in after for name in before) + len(undisturbed) - len(after)
    recomputed = sum(after.get(name) != content for name, content in before.items())
    same = "equal" if results == undisturbed else "differ"
    table.append(Found(fault, place, lost, recomputed, sweep.steps_twice(), f"{recovered:.1f}", same))
    assert (code, lost, recomputed, same) == (0, 0, 0, "equal"), sweep.output()


def _away_for_30_seconds(proxy: Proxy) -> None:
    proxy.cut(30.0)


def _overloaded(proxy: Proxy) -> None:
    proxy.refused = 0.2


@pytest.mark.parametrize("round", ROUNDS)
@pytest.mark.parametrize("fault", [_away_for_30_seconds, _overloaded])
def test_trouble_with_s3_costs_time_only(
    fault: Callable[[Proxy], None],
    round: int,
    s3: S3,
    proxy: Proxy,
    cluster: LocalCluster,
    root: Path,
    undisturbed: dict[str, Any],
    table: list[Found],
) -> None:
    name = f"s3{fault.__name__}_{round}"
    cluster.refill()
    sweep = Sweep(root, s3.uri(name), cluster.address)
    sweep.start()
    sweep.until(sweep.saved, "checkpoint")
    time.sleep(random.Random(name).uniform(0, 8))
    failed = proxy.failed
    fault(proxy)
    started = time.monotonic()
    code = sweep.wait()
    took = time.monotonic() - started
    proxy.refused = 0.0
    assert proxy.failed > failed + 10, "the store was hardly asked"
    results = sweep.results()
    same = "equal" if results == undisturbed else "differ"
    what = f"{fault.__name__.strip('_').replace('_', ' ')} ({proxy.failed - failed} requests)"
    twice = sweep.steps_twice()
    table.append(Found(what, "s3", len(undisturbed) - len(results), 0, twice, f"(end after {took:.0f})", same))
    assert (code, same, twice) == (0, "equal", 0), sweep.output()


@pytest.mark.parametrize("round", ROUNDS)
def test_a_full_disk_is_said_and_the_same_command_goes_on_when_there_is_room(
    round: int, cluster: LocalCluster, root: Path, undisturbed: dict[str, Any], table: list[Found]
) -> None:
    with small_disk(root / f"disk_{round}", megabytes=2) as disk:
        cluster.refill()
        sweep = Sweep(root, str(disk.folder), cluster.address)
        sweep.start()
        assert sweep.wait() in (1, 2)
        assert "No space left" in sweep.output() and "Traceback" not in sweep.output()
        before = sweep.manifests()
        disk.grow(megabytes=200)
        sweep.start()
        code = sweep.wait()
        after, results = sweep.manifests(), sweep.results()
        recomputed = sum(after.get(name) != content for name, content in before.items())
        same = "equal" if results == undisturbed else "differ"
        lost = len(undisturbed) - len(after)
        table.append(Found("disk full", "folder", lost, recomputed, sweep.steps_twice(), "(same command)", same))
        assert (code, lost, recomputed, same) == (0, 0, 0, "equal"), sweep.output()
