"""Whatever is killed, hangs or leaves in the middle of a sweep: nothing finished is lost, nothing finished runs again,
and the points end with the metrics of an undisturbed sweep, to the bit.

``make chaos``; each fault strikes UPOP_CHAOS_STRIKES times (default 3) in the middle of a point, each time at a random
moment, which UPOP_CHAOS_SEED (default 0) chooses.
"""

import contextlib
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import LocalCluster
from tests.chaos.conftest import Found
from tests.chaos.disk import small_disk
from tests.chaos.faults import FAULTS, strike
from tests.chaos.sweep import TAKEN_UP, EndedError, Sweep
from tests.s3 import S3
from tests.s3_proxy import Proxy

pytestmark = pytest.mark.chaos
STRIKES = int(os.environ.get("UPOP_CHAOS_STRIKES", "3"))
SEED = os.environ.get("UPOP_CHAOS_SEED", "0")
#: megabytes of a disk that are too few for the whole sweep
FULL = (2, 4, 6)


@pytest.mark.parametrize("place", ["folder", "s3"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_sweep_survives(
    fault: str,
    place: str,
    request: pytest.FixtureRequest,
    cluster: LocalCluster,
    root: Path,
    undisturbed: dict[str, Any],
    table: list[Found],
) -> None:
    moment, hits = random.Random(f"{fault} {place} {SEED}"), 0
    # a sweep may end before it has been hit so often, since a blow that meets nobody does not count
    for number in range(STRIKES):
        name = f"{fault.replace(' ', '_')}_{number}"
        store = str(root / name) if place == "folder" else request.getfixturevalue("s3").uri(name)
        found = _struck(Sweep(root, store, cluster.address), fault, STRIKES - hits, moment, cluster, undisturbed)
        if found.times:
            table.append(found)
        hits += found.times
        if hits >= STRIKES:
            return
    raise AssertionError(f"{fault}: {hits} of {STRIKES} blows had an effect")


def _struck(
    sweep: Sweep, fault: str, times: int, moment: random.Random, cluster: LocalCluster, undisturbed: dict[str, Any]
) -> Found:
    """A sweep that is struck up to so many times, and ends as if nothing had happened."""
    sweep.start()
    finished: dict[str, bytes] = {}
    recovered: list[float] = []
    with contextlib.suppress(EndedError):
        while len(recovered) < times:
            cluster.refill()
            struck = strike(fault, moment, cluster, sweep)
            finished |= struck.manifests
            if sweep.until(lambda before=struck.attempts: sweep.resumed(before), "newer attempt") == TAKEN_UP:
                recovered.append(time.monotonic() - struck.at)
    code = sweep.wait()
    after, results = sweep.manifests(), sweep.results()
    lost = sum(name not in after for name in finished) + len(undisturbed) - len(after)
    recomputed = sum(after.get(name) != content for name, content in finished.items())
    same = "equal" if results == undisturbed else "differ"
    assert (code, lost, recomputed, same) == (0, 0, 0, "equal"), sweep.output()
    seconds, place = " ".join(f"{each:.0f}" for each in recovered), "folder" if sweep.store.is_local else "s3"
    return Found(fault, place, len(recovered), lost, recomputed, sweep.steps_twice(), seconds, same)


def test_an_outage_of_s3_costs_time_only(
    s3: S3, proxy: Proxy, cluster: LocalCluster, root: Path, undisturbed: dict[str, Any], table: list[Found]
) -> None:
    moment = random.Random(f"outage {SEED}")
    cluster.refill()
    sweep = Sweep(root, s3.uri("outage"), cluster.address)
    sweep.start()
    started, failed = time.monotonic(), proxy.failed
    for _ in range(STRIKES):
        sweep.until(sweep.saved, "checkpoint")
        time.sleep(moment.uniform(0, 8))
        proxy.cut(30.0)
        time.sleep(30.0)
    assert proxy.failed >= failed + 10 * STRIKES, "the store was hardly asked"
    _ends_as_undisturbed(sweep, "S3 away for 30 s", STRIKES, undisturbed, table, started)


def test_an_overloaded_s3_costs_time_only(
    s3: S3, proxy: Proxy, cluster: LocalCluster, root: Path, undisturbed: dict[str, Any], table: list[Found]
) -> None:
    cluster.refill()
    sweep = Sweep(root, s3.uri("overloaded"), cluster.address)
    started, failed, asked = time.monotonic(), proxy.failed, len(proxy.requests)
    proxy.refused = 0.2
    try:
        sweep.start()
        sweep.wait()
    finally:
        proxy.refused = 0.0
    failed, asked = proxy.failed - failed, len(proxy.requests) - asked
    assert failed > 0.1 * asked > 0
    _ends_as_undisturbed(sweep, f"S3 refuses {failed} of {asked}", 1, undisturbed, table, started)


def _ends_as_undisturbed(
    sweep: Sweep, what: str, times: int, undisturbed: dict[str, Any], table: list[Found], started: float
) -> None:
    code = sweep.wait()
    took, twice, results = f"(end after {time.monotonic() - started:.0f})", sweep.steps_twice(), sweep.results()
    same = "equal" if results == undisturbed else "differ"
    table.append(Found(what, "s3", times, len(undisturbed) - len(results), 0, twice, took, same))
    assert (code, same, twice) == (0, "equal", 0), sweep.output()


def test_a_full_disk_is_said_and_the_same_command_goes_on_when_there_is_room(
    cluster: LocalCluster, root: Path, undisturbed: dict[str, Any], table: list[Found]
) -> None:
    cluster.refill()
    with small_disk(root / "disk", FULL[0]) as disk:
        sweep = Sweep(root, str(disk.folder), cluster.address)
        finished: dict[str, bytes] = {}
        for megabytes in FULL:
            disk.grow(megabytes)
            sweep.start()
            assert sweep.wait() in (1, 2)
            assert "No space left" in sweep.output() and "Traceback" not in sweep.output()
            finished |= sweep.manifests()
        disk.grow(200)
        sweep.start()
        code = sweep.wait()
        after, results = sweep.manifests(), sweep.results()
        recomputed = sum(after.get(name) != content for name, content in finished.items())
        same = "equal" if results == undisturbed else "differ"
        lost, twice = len(undisturbed) - len(after), sweep.steps_twice()
        table.append(Found("disk full", "folder", len(FULL), lost, recomputed, twice, "(same command)", same))
        assert (code, lost, recomputed, same) == (0, 0, 0, "equal"), sweep.output()
