"""The end of a point: evaluate on both splits, export, write the manifest last."""

import copy
import hashlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import PreTrainedModel

from upop_ray.identity import point_settings
from upop_ray.pruning.collapse import collapse_warnings
from upop_ray.pruning.cost import removable_cost, unit_costs
from upop_ray.pruning.site import Keep, kept_counts, kept_share
from upop_ray.store import PointPaths, Store, dense_path
from upop_ray.tasks.collective import gather, rank, world_size
from upop_ray.tasks.spec import Task
from upop_ray.tracking import MetricRows
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.prepared import Prepared
from upop_ray.training.progress import Stopwatch

SCHEMA_VERSION = 1
_PACKAGES = ("torch", "transformers", "ray", "deepspeed", "optuna", "numpy")


@dataclass(frozen=True)
class Outcome:
    """What training leaves: the final model, its masks and costs, and what was noted on the way."""

    model: PreTrainedModel
    keep: Keep
    costs: Mapping[str, int]
    facts: Mapping[str, Any]
    watch: Stopwatch
    rows: MetricRows


def dense_facts(prepared: Prepared, task: Task, store: Store, device: torch.device) -> dict[str, Any]:
    """Size and metrics of the dense model, measured once for a store."""
    path = dense_path(prepared.dense_hash)
    # rank 0 decides for all, so that nobody evaluates alone
    known = gather(torch.tensor([store.exists(path)], dtype=torch.long, device=device))[0]
    if known:
        return dict(store.read_json(path))
    model = copy.deepcopy(prepared.model).to(device)
    facts = {
        "schema_version": SCHEMA_VERSION,
        "model": prepared.experiment.model.path,
        **size(prepared, prepared.model),
        "validation": task.evaluate(model, "validation"),
        "test": task.evaluate(model, "test"),
    }
    if rank() == 0:
        store.write_json(path, facts)
    return facts


def size(prepared: Prepared, model: PreTrainedModel) -> dict[str, int]:
    """Parameters and multiply-accumulates as the manifest names them."""
    found = prepared.spec.size(model)
    return {"parameters": found.parameters, "macs": found.macs}


def finish(
    prepared: Prepared, task: Task, store: Store, attempt: Attempt, dense: Mapping[str, Any], outcome: Outcome
) -> dict[str, Any]:
    """Evaluate the final model on both splits, export it, and write the manifest last.

    :returns: the manifest
    """
    model, experiment = outcome.model, prepared.experiment
    metrics = {split: task.evaluate(model, split) for split in ("validation", "test")}
    outcome.watch.lap("evaluate")
    outcome.rows.log("finished", 0, {f"{split}/{k}": v for split, found in metrics.items() for k, v in found.items()})
    sites = prepared.spec.sites(prepared.model)
    removed = _removed(prepared, outcome)
    facts = size(prepared, model)
    if facts["parameters"] != dense["parameters"] - removed["params"]:
        raise AssertionError(
            f"parameters {facts['parameters']} are not dense minus {removed['params']}: a defect of upop_ray"
        )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "hash": prepared.hash,
        "experiment": experiment.name,
        "settings": point_settings(experiment),
        "headline": task.headline,
        "dense": dict(dense),
        **facts,
        "budget": {
            "asked": experiment.search.ratio,
            "of": experiment.search.budget,
            "achieved": outcome.facts["achieved_ratio"],
            "removable": {name: removable_cost(sites, _costs(prepared, name)) for name in ("params", "macs")},
            "removed": removed,
        },
        "compression": {name: 1 - facts[name] / dense[name] for name in ("parameters", "macs")},
        "sites": {site.name: {"tower": site.tower, "kind": site.kind, "units": site.units} for site in sites},
        "kept_units": kept_counts(outcome.keep),
        "kept_share": kept_share(sites, outcome.keep),
        "masks_hash": _digest(outcome.keep),
        "warnings": collapse_warnings(sites, outcome.keep, experiment.search.collapse_share),
        "checks": {"masked_vs_sliced": outcome.facts["masked_vs_sliced"]},
        "metrics": {"before_retraining": outcome.facts["before_retraining"], **metrics},
        "losses": outcome.facts.get("losses", {}),
        # goes on: the export counts too
        "seconds": outcome.watch.totals,
        "workers": world_size(),
        "replica": experiment.replica.model_dump(mode="json"),
        "attempt": attempt.number,
        "versions": versions(),
    }
    if rank() == 0:
        _export(prepared, store, attempt, outcome, manifest)
    return manifest


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("upop_ray", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _export(prepared: Prepared, store: Store, attempt: Attempt, outcome: Outcome, manifest: dict[str, Any]) -> None:
    paths = PointPaths(prepared.hash)
    attempt.settle()
    with tempfile.TemporaryDirectory(prefix="upop-export-") as folder:
        outcome.model.cpu().save_pretrained(folder)
        prepared.processor.save_pretrained(folder)
        store.upload(Path(folder), paths.model, before=attempt.check)
    attempt.check()
    store.write(paths.masks, safetensors.torch.save({name: mask.cpu() for name, mask in outcome.keep.items()}))
    store.write(paths.metrics, outcome.rows.to_parquet())
    attempt.check()
    outcome.watch.lap("export")
    store.write_json(paths.manifest, manifest)
    attempt.prune(prepared.experiment.keep_checkpoints)


def _digest(keep: Keep) -> str:
    """Equal for equal masks, and for no others."""
    digest = hashlib.sha256()
    for name in sorted(keep):
        digest.update(f"{name} ".encode() + bytes(keep[name].cpu().tolist()))
    return digest.hexdigest()


def _removed(prepared: Prepared, outcome: Outcome) -> dict[str, int]:
    removed = {name: int((~mask).sum()) for name, mask in outcome.keep.items()}
    return {
        budget: sum(count * _costs(prepared, budget)[name] for name, count in removed.items())
        for budget in ("params", "macs")
    }


def _costs(prepared: Prepared, budget: Any) -> dict[str, int]:
    return unit_costs(prepared.model, prepared.spec.sites(prepared.model), budget, prepared.spec.paper_attention_cost)
