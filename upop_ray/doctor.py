"""Say what would keep a sweep from running, before it runs: ``python -m upop_ray.doctor FILE.yaml``."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.terminal import USER_ERROR, console, guarded, split_arguments

#: seconds that the data may keep it waiting
_OUTAGE = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.doctor",
        description="Check store, data, checkpoint and the nodes of the cluster (RAY_ADDRESS) for an experiment.",
        epilog="exit code: 0 a sweep can start, 2 something is wrong",
    )
    parser.add_argument("experiment", nargs="?", help="experiment YAML (default: the built-in CLIP)")
    parser.add_argument("overrides", nargs="*", metavar="setting=value", help="for example replica.workers=2")
    options = parser.parse_args(arguments)
    return doctor(config.load(*split_arguments(options.experiment, options.overrides)))


def doctor(experiment: Experiment) -> int:
    """Print what was looked at and what to do; returns the exit code.

    :raises ConfigError: the cluster of ``RAY_ADDRESS`` cannot be reached
    """
    # Ray takes seconds to import, which --help and a wrong setting need not wait for
    from upop_ray.distributed.checkup import examine_cluster, examine_inputs
    from upop_ray.distributed.cluster import connected, with_absolute_paths
    from upop_ray.store.patience import at_most
    from upop_ray.tracking import quieten

    quieten()
    experiment = with_absolute_paths(experiment)
    with at_most(_OUTAGE):
        checks = list(examine_inputs(experiment))
    with connected():
        checks += examine_cluster(experiment)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "", "found", "what to do"):
        table.add_column(column)
    for check in checks:
        table.add_row(check.name, check.level, check.found, check.cure)
    console.print(table)
    return USER_ERROR if any(check.level == "wrong" for check in checks) else 0


if __name__ == "__main__":
    guarded(main)
