"""Compute one point in this process: ``python -m upop_ray.run FILE.yaml search.ratio=0.5``."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.errors import ConfigError
from upop_ray.store import PointPaths, Store
from upop_ray.terminal import PhaseBars, console, guarded, split_arguments
from upop_ray.tracking import quieten
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.engine import LocalEngine
from upop_ray.training.occupation import Held, Occupation
from upop_ray.training.point import Point
from upop_ray.training.prepared import prepare
from upop_ray.training.progress import Host


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.run",
        description="Compute one point in this process, without Ray: search masks, slice, retrain, evaluate, export.",
        epilog="example: python -m upop_ray.run experiments/builtin_clip.yaml search.ratio=0.5 search.method=upop",
    )
    parser.add_argument("experiment", nargs="?", help="experiment YAML (default: the built-in CLIP)")
    parser.add_argument("overrides", nargs="*", metavar="setting=value", help="for example search.ratio=0.75")
    options = parser.parse_args(arguments)
    path, overrides = split_arguments(options.experiment, options.overrides)
    experiment = config.load(path, overrides)
    run(config.at_ratio(experiment, experiment.search.ratio))
    return 0


def run(experiment: Experiment) -> dict[str, object]:
    """Compute the experiment's point and return its manifest."""
    quieten()
    begun = time.monotonic()
    torch.set_num_threads(max(1, round(experiment.replica.cpus_per_worker)))
    device = local_device(experiment)
    store = Store(experiment.store, experiment.store_timeout)
    store.check()
    prepared = prepare(experiment)
    paths = PointPaths(prepared.hash)
    if store.exists(paths.manifest):
        manifest = store.read_json(paths.manifest)
    else:
        attempt = Attempt.begin(store, paths)
        # one process, whatever a replica of a sweep would have
        held = Held("", experiment.replica.cpus_per_worker, experiment.replica.gpus_per_worker)
        occupation = Occupation(store, paths.cost(attempt.number), held, begun)
        occupation.started()
        store.write_json(paths.settings, experiment.model_dump(mode="json"))
        try:
            manifest = _computed(Point(prepared, Host(store, LocalEngine, attempt, device)), occupation)
            occupation.end("finished")
        finally:
            # also after Ctrl-C: what was saved is in the store before this ends
            attempt.settle()
            occupation.end("interrupted")
    _report(manifest, store, paths)
    return dict(manifest)


def _computed(point: Point, occupation: Occupation) -> dict[str, Any]:
    """The manifest of a point, whose progress is shown meanwhile."""
    manifest: dict[str, Any] = {}
    with PhaseBars() as bars:
        for progress in point.run():
            occupation.worked(progress.seconds)
            if progress.manifest is not None:
                manifest = progress.manifest
            elif progress.note:
                console.print(progress.note)
            else:
                bars.show(progress.phase, progress.step, progress.steps, progress.metrics)
    return manifest


def local_device(experiment: Experiment) -> torch.device:
    """The device of a worker: a GPU when the replica asks for one.

    :raises ConfigError: it asks for a GPU and there is none
    """
    if experiment.replica.gpus_per_worker == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "replica.gpus_per_worker", f"{experiment.replica.gpus_per_worker} asked, this machine has no GPU", "use 0"
        )
    return torch.device("cuda", torch.cuda.current_device())


def _report(manifest: dict, store: Store, paths: PointPaths) -> None:  # type: ignore[type-arg]
    headline, dense, metrics = manifest["headline"], manifest["dense"], manifest["metrics"]
    budget = manifest["budget"]
    console.print(
        f"{manifest['settings']['search']['method']} {budget['asked']} of removable {budget['of']} "
        f"(achieved {budget['achieved']:.4f})\n"
        f"parameters    {dense['parameters']:,} -> {manifest['parameters']:,}\n"
        f"MACs          {dense['macs']:,} -> {manifest['macs']:,}\n"
        f"{headline:13} validation {dense['validation'][headline]:.2f} -> {metrics['validation'][headline]:.2f}, "
        f"test {dense['test'][headline]:.2f} -> {metrics['test'][headline]:.2f}\n"
        f"sliced against masked: largest difference {manifest['checks']['masked_vs_sliced']:.1e}\n"
        f"model         {store.path(paths.model)}"
    )


if __name__ == "__main__":
    guarded(main)
