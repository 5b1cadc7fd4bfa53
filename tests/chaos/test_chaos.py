"""Whatever is killed, hangs or leaves in the middle of a sweep: nothing finished is lost, nothing finished runs again,
and the points end with the metrics of an undisturbed sweep, to the bit.

``make chaos``; UPOP_CHAOS_ROUNDS (default 1) is how often each fault strikes, each time at another moment.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import LocalCluster
from tests.chaos.conftest import Found
from tests.chaos.faults import FAULTS, strike
from tests.chaos.sweep import Sweep

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
