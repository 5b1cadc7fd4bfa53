"""What ``search.align`` does to latency: a dense model and its slices of several alignments, measured in turns.

``python -m tests.bench.alignment builtin:clip`` or ``... base-16`` (a CLIP of that published size, random weights).
Which units go does not matter for latency; they go at random, so that widths are as odd as those of a search.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.table import Table
from transformers import PreTrainedModel

from upop_ray.config import Search
from upop_ray.data.checkpoints import resolve_checkpoint
from upop_ray.deploy.latency import Case, row_of
from upop_ray.deploy.latency_backends import BACKENDS, variant_of
from upop_ray.deploy.latency_measure import device_name
from upop_ray.deploy.latency_rounds import interleaved
from upop_ray.models.clip import SPEC
from upop_ray.models.spec import Source
from upop_ray.pruning.cost import removable_cost, removed_cost
from upop_ray.pruning.methods import METHODS, unsearched_masks
from upop_ray.terminal import console
from upop_ray.training.budget import ranking_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.alignment", description=__doc__)
    parser.add_argument("model", help=f"builtin:clip, or {', '.join(SPEC.published)}")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5, 0.75])
    parser.add_argument("--aligns", nargs="+", type=int, default=[1, 8, 16])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=["eager"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring for each line of four models")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    console.print(
        f"{device_name(device)}, {options.threads} threads, {options.precision}, load {os.getloadavg()[0]:.1f}"
    )
    for ratio in options.ratios:
        for backend in options.backends:
            console.print(_table(options, ratio, backend, device))
    console.print(f"load {os.getloadavg()[0]:.1f}")


def _table(options: argparse.Namespace, ratio: float, backend: str, device: torch.device) -> Table:
    models = [_dense(options.model)]
    names = ["dense"]
    for align in options.aligns:
        sliced, achieved = _sliced(models[0], ratio, align)
        models.append(sliced)
        names.append(f"align {align} ({achieved:.4f})")
    macs = [SPEC.size(model).macs for model in models]
    table = Table("batch", *(f"{n}, {m / macs[0]:.0%} MACs" for n, m in zip(names, macs, strict=True)), title=backend)
    runners = [BACKENDS[backend](variant_of(SPEC, model, options.precision, device)) for model in models]
    for batch in options.batches:
        times = interleaved([runner(batch) for runner in runners], options.seconds)
        table.add_row(str(batch), *_cells(Case(backend, options.precision, batch), times))
    return table


def _cells(case: Case, times: Sequence[Sequence[float]]) -> Iterator[str]:
    for own in times:
        row = row_of(case, own, times[0])
        assert row.sliced is not None and row.speedup is not None
        yield f"{row.sliced.median:.2f} ms {row.speedup.median:.2f}x ({row.speedup.low:.2f} to {row.speedup.high:.2f})"


def _dense(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name in SPEC.published:
        return SPEC.published[name]().eval()
    return SPEC.load(Source(Path(resolve_checkpoint(name))))[0]


def _sliced(model: PreTrainedModel, ratio: float, align: int) -> tuple[PreTrainedModel, float]:
    """The slice, and the share of the removable parameters that is gone."""
    ranking = ranking_of(Search(ratio=ratio, align=align), SPEC, model)
    keep = unsearched_masks(model, METHODS["random"], ranking, ratio, seed=0)
    achieved = removed_cost(keep, ranking.costs) / removable_cost(ranking.sites, ranking.costs)
    return SPEC.sliced(model, model.state_dict(), keep), achieved


if __name__ == "__main__":
    main()
