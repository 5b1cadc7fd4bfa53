"""Latencies of points, as ``python -m upop_ray.bench`` has left them in the store."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from upop_ray.errors import ConfigError
from upop_ray.reporting.candidates import Candidate
from upop_ray.reporting.points import PointRow
from upop_ray.store import PointPaths, Store
from upop_ray.store.many import read_jsons

#: hash of a point -> median milliseconds
Latencies: TypeAlias = Mapping[str, float]


def read_latencies(store: Store, rows: Sequence[PointRow]) -> dict[str, dict[str, Any]]:
    """Hash -> what was measured, of the points of which something was."""
    found = read_jsons(store, [PointPaths(row.hash).latency for row in rows])
    return {row.hash: one for row, one in zip(rows, found, strict=True) if one and one.get("headline")}


def latencies(store: Store, offers: Sequence[Candidate]) -> Latencies:
    """Milliseconds of the points that were measured.

    :raises ConfigError: none was, or not all in the same way
    """
    found = read_latencies(store, [offer.taken for offer in offers])
    command = f"python -m upop_ray.bench HASH --store {store.uri}"
    if not found:
        first = offers[0].taken.hash
        problem = "no point was measured (of several seeds the best on validation counts)"
        raise ConfigError("--max-latency", problem, f"measure them: {command}, for example {first}")
    ways = {how(one): point for point, one in found.items()}
    if len(ways) > 1:
        told = "; ".join(f"{point}: {way}" for way, point in list(ways.items())[:2])
        raise ConfigError(
            "--max-latency", f"points were measured in several ways ({told})", f"measure alike: {command}"
        )
    return {point: one["headline"]["milliseconds"] for point, one in found.items()}


def latency_of(offer: Candidate, latency: Latencies) -> float | None:
    """Milliseconds of the point that would be taken; None where it was not measured, whatever other seeds have."""
    return latency.get(offer.taken.hash)


def how(measured: Mapping[str, Any]) -> str:
    """On what and in which case points are compared."""
    case = measured["headline"]
    threads = measured["threads"]
    return f"{case['backend']} {case['precision']} batch {case['batch']} on {measured['device']}, {threads} threads"
