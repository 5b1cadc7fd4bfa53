"""Stores of finished sweeps without computing them: one real tiny point, again and again with other numbers."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import tiny_experiment
from upop_ray.config import Experiment, at_ratio, parse, replaced
from upop_ray.identity import point_settings
from upop_ray.reporting.candidates import Candidate, candidates
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.sweeps import SweepResults
from upop_ray.run import run
from upop_ray.store import PointPaths, Store, SweepPaths
from upop_ray.training.finish import versions

#: dense scores of the sweeps made here
DENSE = {"validation": 60.0, "test": 58.0}
DENSE_PARAMETERS, DENSE_MACS = 2_000_000, 50_000_000


@dataclass(frozen=True)
class Template:
    """A real point: its manifest, what it logged, and its experiment."""

    manifest: Mapping[str, Any]
    metrics: bytes
    experiment: Mapping[str, Any]


def template(root: Path) -> Template:
    """Compute one tiny point of ``upop``, in seconds."""
    # enough steps that masks are updated a few times
    experiment = tiny_experiment(root, search={"method": "upop", "interval": 2, "ratio": 0.5}, epoch_steps=8)
    manifest = run(experiment)
    metrics = Store(experiment.store).read(PointPaths(str(manifest["hash"])).metrics)
    return Template(manifest, metrics, experiment.model_dump(mode="json"))


@dataclass(frozen=True)
class Made:
    """What is to be said of one point.

    :param validation: None is a point that has not finished
    """

    method: str
    ratio: float
    seed: int
    validation: float | None
    test: float = 50.0
    draw: int = 0
    drawn: Mapping[str, Any] = field(default_factory=dict)
    state: str = "proposed"
    cause: str = ""


_HASHES = itertools.count(1)


def write_sweep(store: Store, real: Template, name: str, points: Sequence[Made], **settings: Any) -> list[str]:
    """A sweep of points as if they had been computed; returns their hashes."""
    header = "".join(f"# {package} {version}\n" for package, version in versions().items())
    experiment = parse({**real.experiment, "name": name, **settings})
    asked = yaml.safe_dump(experiment.model_dump(mode="json"))
    store.write(SweepPaths(name).experiment, (header + asked).encode())
    return [_write_point(store, real, experiment, point) for point in points]


def _write_point(store: Store, real: Template, experiment: Experiment, point: Made) -> str:
    sweep = experiment.name
    address = f"{next(_HASHES):016x}"
    cell = {"method": point.method, "ratio": point.ratio, "seed": point.seed}
    member = {"schema_version": 1, "hash": address, "cell": cell, "draw": point.draw, "drawn": dict(point.drawn)}
    content = {**member, "state": point.state, "cause": point.cause, "validation": None}
    store.write_json(f"{SweepPaths(sweep).members}/{address}.json", content)
    if point.validation is not None:
        store.write(PointPaths(address).metrics, real.metrics)
        own = {"search.ratio": point.ratio, "search.method": point.method, "seed": point.seed, **point.drawn}
        settings = point_settings(replaced(at_ratio(experiment, point.ratio), own))
        store.write_json(PointPaths(address).manifest, _manifest(real, sweep, address, point) | {"settings": settings})
    return address


def _manifest(real: Template, sweep: str, address: str, point: Made) -> dict[str, Any]:
    manifest: dict[str, Any] = copy.deepcopy(dict(real.manifest))
    headline, gone = manifest["headline"], point.ratio * 0.8
    manifest |= {"hash": address, "experiment": sweep}
    manifest["settings"]["search"] |= {"method": point.method, "ratio": point.ratio}
    manifest["dense"] |= {"parameters": DENSE_PARAMETERS, "macs": DENSE_MACS}
    for split, value in DENSE.items():
        manifest["dense"][split][headline] = value
    manifest["parameters"] = round(DENSE_PARAMETERS * (1 - gone))
    manifest["macs"] = round(DENSE_MACS * (1 - gone))
    manifest["compression"] = {"parameters": gone, "macs": gone}
    manifest["metrics"]["validation"][headline] = point.validation
    manifest["metrics"]["test"][headline] = point.test
    return manifest


def offers(*points: Made) -> list[Candidate]:
    """What a sweep of these points offers, without a store."""
    rows = [row(point, f"{number:016x}") for number, point in enumerate(points, start=1)]
    return candidates(SweepResults("sweep", rows, {}, {}, None))


def row(point: Made, address: str = "0" * 16) -> PointRow:
    """The row that a report would read of a point, without a store."""
    real = Template(_BARE, b"", {})
    manifest = None if point.validation is None else _manifest(real, "sweep", address, point)
    return PointRow(
        point.method,
        point.ratio,
        point.seed,
        point.draw,
        point.drawn,
        address,
        "finished" if manifest else point.state,
        point.cause,
        manifest,
    )


#: as much of a manifest as choosing reads
_BARE: Mapping[str, Any] = {
    "headline": "r_mean",
    "settings": {"search": {}, "data": {"path": "data"}},
    "dense": {"validation": {}, "test": {}},
    "metrics": {"validation": {}, "test": {}},
}
