"""Rows and events of sweeps for what is shown while they run and in TensorBoard."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.reporting.results import Made, row
from upop_ray.reporting.points import PointRow
from upop_ray.store import Store

#: what tables of the terminal and of TensorBoard read beside what choosing reads
_MORE: dict[str, Any] = {
    "seconds": {"search": 60.0, "retrain": 40.0},
    "workers": 2,
    "replica": {"cpus_per_worker": 3.0, "gpus_per_worker": 1.0},
    "sites": {"vision.0.mlp": {"tower": "vision", "kind": "mlp", "units": 4}},
    "kept_units": {"vision.0.mlp": 1},
}


def finished(made: Made) -> PointRow:
    """The row of a finished point, with a hash of its own."""
    found = row(made, made_hash(made))
    assert found.manifest is not None
    manifest = {**found.manifest, **_MORE}
    manifest["metrics"] = {**manifest["metrics"], "before_retraining": {"r_mean": 20.0}}
    manifest["settings"] = {**manifest["settings"], "retrain": {"learning_rate": 0.01}, "seed": made.seed}
    return replace(found, manifest=manifest)


def made_hash(made: Made) -> str:
    """A hash for each point."""
    return f"{hash((made.method, made.ratio, made.seed, made.draw)) & (2**64 - 1):016x}"


def events(store: Store, folder: str, scratch: Path) -> EventAccumulator:
    """A run as TensorBoard reads it, from a folder or a bucket."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in store.sizes(folder):
        (scratch / Path(name).name).write_bytes(store.read(name))
    return EventAccumulator(str(scratch), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()


def scalars(board: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) in the order of writing."""
    return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
