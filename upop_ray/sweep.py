"""Sweep ratios, methods, seeds and drawn settings: ``python -m upop_ray.sweep FILE.yaml a.b=c``."""

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.terminal import console, guarded, split_arguments

if TYPE_CHECKING:
    from upop_ray.distributed.controller import SweepResult

_HELP = """\
Sweep compression ratios and methods of a vision-language transformer on Ray, and keep for each point the sliced model.
Without arguments it runs the built-in experiment: a small CLIP on emoji renderings, four ratios, two methods.
The same command computes only what is missing, so run it again after an interruption or with more ratios."""

_EPILOG = """\
examples:
  python -m upop_ray.sweep
  python -m upop_ray.sweep experiments/builtin_clip.yaml sweep.ratios=[0.5,0.75] sweep.seeds=[0,1]
  python -m upop_ray.sweep experiments/builtin_clip.yaml replica.workers=2 replica.zero_stage=3
  ray job submit -- python -m upop_ray.sweep

results:   STORE/points/HASH/{model,manifest.json,metrics.parquet}
curves:    tensorboard --logdir STORE/sweeps/NAME/tensorboard
exit code: 0 every point is there, 1 some failed, 2 the experiment cannot run as written, 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.sweep",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", nargs="?", help="experiment YAML (default: the built-in one)")
    parser.add_argument("overrides", nargs="*", metavar="setting=value", help="for example sweep.ratios=[0.3,0.5]")
    options = parser.parse_args(arguments)
    experiment = config.load(*split_arguments(options.experiment, options.overrides))
    # Ray takes seconds to import, which --help and a wrong setting need not wait for
    from upop_ray.distributed.controller import run_sweep

    result = run_sweep(experiment)
    show(experiment, result)
    return result.exit_code


def show(experiment: Experiment, result: "SweepResult") -> None:
    """Print how the sweep ended: its points, what failed, and where the curve is."""
    from upop_ray.reporting.costs import cost_lines
    from upop_ray.reporting.ledger import read_ledger
    from upop_ray.reporting.table import points_table, seeds_table, unfinished_lines, warning_lines
    from upop_ray.store import Store, SweepPaths
    from upop_ray.tracking import viewer

    console.print()
    if any(row.manifest for row in result.rows):
        console.print(points_table(result.rows))
    by_seed = seeds_table(result.rows)
    if by_seed is not None:
        console.print()
        console.print(by_seed)
    for line in (*unfinished_lines(result.rows), *warning_lines(result.rows)):
        console.print(line)
    store = Store(experiment.store)
    console.print()
    finished = sum(1 for row in result.rows if row.state == "finished")
    took = f"{result.seconds / 60:.1f} min"
    console.print(f"{finished} points finished, {result.reused} of them before this run; {took}")
    ledger = read_ledger(store, experiment.name, result.rows, since=time.time() - result.seconds)
    for line in cost_lines(ledger, experiment.sweep.price):
        console.print(line)
    if result.interrupted:
        console.print("interrupted: the same command goes on from the last checkpoints")
    console.print(f"models: {store.path('points')}")
    console.print(f"curve:  {viewer(store, SweepPaths(experiment.name).tensorboard)}")


if __name__ == "__main__":
    guarded(main)
