"""Say what a sweep would compute, before it runs: ``python -m upop_ray.plan FILE.yaml``."""

import argparse
from collections.abc import Sequence

import torch
from rich.table import Table
from transformers import PreTrainedModel

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.errors import CheckpointError, ConfigError
from upop_ray.models import family
from upop_ray.models.spec import ModelSpec, Size, eager_attention
from upop_ray.pruning.cost import removable_cost, unit_costs
from upop_ray.pruning.site import Site
from upop_ray.run import split_arguments
from upop_ray.terminal import console, guarded
from upop_ray.tracking import quieten
from upop_ray.training.prepared import load_dense


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.plan",
        description="Print the size of the dense model, as deployed and as the paper counts it, and of each point.",
        epilog="example: python -m upop_ray.plan experiments/builtin_clip.yaml search.budget=macs",
    )
    parser.add_argument("experiment", nargs="?", help="experiment YAML (default: the built-in CLIP)")
    parser.add_argument("overrides", nargs="*", metavar="setting=value", help="for example model.size=base")
    options = parser.parse_args(arguments)
    quieten()
    plan(config.load(*split_arguments(options.experiment, options.overrides)))
    return 0


def plan(experiment: Experiment) -> None:
    """Print the plan of an experiment.

    :raises CheckpointError: the checkpoint is not at hand, and no published size is named
    """
    spec = family(experiment.model.family, experiment.task.name)
    model, origin = dense_model(experiment, spec)
    sites = spec.sites(model)
    size = spec.size(model)
    console.print(f"dense: {experiment.model.family}, {origin}")
    console.print(f"  {size.parameters:,} parameters, {size.macs:,} MACs ({size.counted})")
    if spec.paper_size is not None:
        with eager_attention(model):
            paper = spec.paper_size(model)
        console.print(f"  as the paper counts: {paper.parameters:,} parameters, {paper.macs:,} MACs ({paper.counted})")
    console.print(_removable_table(model, sites, spec))
    console.print(_points_table(experiment, model, sites, spec, size))
    sweep = experiment.sweep
    grid = len(sweep.ratios) * len(sweep.methods) * len(sweep.seeds)
    console.print(f"{grid} cells (ratio, method, seed), {grid * (sweep.samples if sweep.space else 1)} points at most")


def dense_model(experiment: Experiment, spec: ModelSpec) -> tuple[PreTrainedModel, str]:
    """The checkpoint, or, where it is not at hand, the published size that the experiment names, without weights."""
    try:
        return load_dense(experiment.model)[0], experiment.model.path
    except CheckpointError:
        if experiment.model.size is None:
            raise
    return published(
        experiment, spec
    ), f"published size {experiment.model.size}; {experiment.model.path} is not at hand"


def published(experiment: Experiment, spec: ModelSpec) -> PreTrainedModel:
    """The model of ``model.size`` on the meta device.

    :raises ConfigError: the family has no such size
    """
    name = experiment.model.size
    if name is None or name not in spec.published:
        known = ", ".join(spec.published)
        raise ConfigError("model.size", f"{experiment.model.family} has no size {name!r}", f"use one of {known}")
    with torch.device("meta"):
        return spec.published[name]().eval()


def _removable_table(model: PreTrainedModel, sites: tuple[Site, ...], spec: ModelSpec) -> Table:
    """Units and what they cost, by tower and kind."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sites")
    for name in ("units", "parameters a unit", "MACs a unit", "paper's weight"):
        table.add_column(name, justify="right")
    costs = [unit_costs(model, sites, budget, spec.paper_attention_cost) for budget in ("params", "macs", "units")]  # type: ignore[arg-type]
    for tower, kind in dict.fromkeys((site.tower, site.kind) for site in sites):
        group = [site for site in sites if (site.tower, site.kind) == (tower, kind)]
        shown = [_range([cost[site.name] for site in group]) for cost in costs]
        table.add_row(f"{len(group)} {tower} {kind}", f"{sum(site.units for site in group):,}", *shown)
    return table


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _points_table(
    experiment: Experiment, model: PreTrainedModel, sites: tuple[Site, ...], spec: ModelSpec, dense: Size
) -> Table:
    """Size of the points of each ratio; exact in the currency of the budget, the other by the same share."""
    budget = experiment.search.budget
    removable = {
        name: removable_cost(sites, unit_costs(model, sites, name, spec.paper_attention_cost))
        for name in ("params", "macs")
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ratio", justify="right")
    for column, currency in (("parameters", "params"), ("MACs", "macs")):
        table.add_column(column if currency == budget else f"about {column}", justify="right")
    for ratio in sorted(experiment.sweep.ratios):
        left = (dense.parameters - ratio * removable["params"], dense.macs - ratio * removable["macs"])
        table.add_row(f"{ratio:g}", *(f"{round(value):,}" for value in left))
    return table


if __name__ == "__main__":
    guarded(main)
