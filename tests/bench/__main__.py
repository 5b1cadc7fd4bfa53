"""``make bench``: what the search costs over fine-tuning, what Ray costs, how soon a warm trial is at work."""

import copy
import tempfile
import time
from statistics import median
from typing import Any

import torch

from upop_ray import config, run
from upop_ray.config import Experiment
from upop_ray.data.order import Cursor
from upop_ray.distributed.controller import run_sweep
from upop_ray.pruning.cost import unit_costs
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.methods import METHODS
from upop_ray.pruning.ranking import Ranking
from upop_ray.training.engine import EngineSettings, LocalEngine
from upop_ray.training.objective import Objective
from upop_ray.training.prepared import Prepared, prepare
from upop_ray.training.search import MaskSearch

ROUNDS = 40


def search_over_fine_tuning(prepared: Prepared) -> tuple[float, float]:
    """Median seconds of a plain step and of a search step, in turn on the same batches; re-ranking every 5 steps."""
    experiment = prepared.experiment
    task = prepared.task()
    settings = EngineSettings(experiment.optimizer, 1e-4)
    plain_model, gated_model = copy.deepcopy(prepared.model), copy.deepcopy(prepared.model)
    task.start(plain_model)
    task.start(gated_model)
    sites = prepared.spec.sites(gated_model)
    gates = Gates(gated_model, sites)
    gates.attach(gated_model)
    plain = LocalEngine(plain_model, settings)
    ranking = Ranking(sites, unit_costs(gated_model, sites, "params", 36))
    search = MaskSearch(LocalEngine(gated_model, settings), gates, Objective(task), METHODS["upop"], ranking)
    steps = search.run(experiment.search)
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(ROUNDS):
        start = time.perf_counter()
        batch = task.batch(Cursor(0, index), 0, 1)
        loss = task.loss(plain_model, plain.forward, batch, Cursor(0, index))
        plain.backward(loss.value)
        plain.step(1e-4)
        middle = time.perf_counter()
        next(steps)
        times[0].append(middle - start)
        times[1].append(time.perf_counter() - middle)
    # the first steps pay for what is made once
    return median(times[0][5:]), median(times[1][5:])


def ray_over_no_ray(folder: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Seconds by part: without Ray, on a cold replica of one worker, and on the same replica warm."""
    overrides = ["retrain.epochs=1", "sweep.ratios=[0.5]", "sweep.methods=[upop]", "sweep.max_concurrent=1"]
    alone = run.run(_experiment(f"{folder}/alone", overrides))
    swept = run_sweep(_experiment(f"{folder}/ray", [*overrides, "sweep.seeds=[0,1]"]))
    manifests: list[Any] = [row.manifest for row in swept.rows]
    return dict(alone["seconds"]), dict(manifests[0]["seconds"]), dict(manifests[1]["seconds"])  # type: ignore[call-overload]


def _experiment(store: str, overrides: list[str]) -> Experiment:
    return config.load(None, [f"store={store}", *overrides])


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="upop-bench-") as folder:
        plain, search = search_over_fine_tuning(prepare(_experiment(folder, [])))
        steps = f"({search:.4f} s / {plain:.4f} s, {ROUNDS} in turn)"
        print(f"search step / fine-tuning step: {search / plain:.3f}  {steps}")
        alone, cold, warm = ray_over_no_ray(folder)
        for part in ("search", "retrain"):
            seconds = f"({cold[part]:.1f} s / {alone[part]:.1f} s)"
            print(f"Ray, one worker / no Ray, {part}: {cold[part] / alone[part]:.3f}  {seconds}")
        print(f"warm trial, from its start to the first step, search and retraining together: {warm['start']:.2f} s")


if __name__ == "__main__":
    main()
