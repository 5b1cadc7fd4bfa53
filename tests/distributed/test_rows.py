"""Each row of the paper's table as a sweep on two workers at ZeRO-2, against one process without Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load_file

from tests.rows import ROWS, row_experiment
from tests.training.test_point import manifest_of
from upop_ray.distributed.controller import run_sweep
from upop_ray.store import PointPaths, Store


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


#: small parameters would otherwise stay whole on every worker
SHARDED = {
    "workers": 2,
    "zero_stage": 3,
    "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 10}},
}


def two_workers_find_the_masks_of_one_process(name: str, root: Path, replica: dict[str, Any], **parts: Any) -> None:
    sweep = {"ratios": [0.5], "methods": ["upop"]}
    two = row_experiment(name, root, store=str(root / "two"), replica=replica, sweep=sweep, **parts)
    one = row_experiment(name, root, store=str(root / "one"), **parts)
    result = run_sweep(two)
    assert result.exit_code == 0
    manifest, alone = result.rows[0].manifest, manifest_of(one)
    assert manifest is not None and manifest["workers"] == 2
    assert manifest["checks"]["masked_vs_sliced"] <= 1e-5
    assert manifest["hash"] == alone["hash"]
    assert manifest["dense"]["validation"] == pytest.approx(alone["dense"]["validation"])
    masks, expected = (
        load_file(Store(store.store).path(PointPaths(alone["hash"]).masks)) for store in (two, one)
    )  # fmt: skip
    differing = sum(int((masks[site] != expected[site]).sum()) for site in expected)
    units = sum(mask.numel() for mask in expected.values())
    # sums in another order may swap units of almost equal scores
    assert differing <= 0.01 * units, f"{differing} of {units} units"
    assert torch.isfinite(torch.tensor(list(manifest["metrics"]["test"].values()))).all()


@pytest.mark.parametrize(
    "name", [name if name == "blip_retrieval" else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_every_row_at_zero_2(name: str, tmp_path: Path) -> None:
    two_workers_find_the_masks_of_one_process(name, tmp_path, {"workers": 2})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "blip_retrieval"])
def test_momentum_encoder_and_queue_at_zero_3(name: str, tmp_path: Path) -> None:
    task = {"loss": "momentum", "momentum": {"queue_size": 8, "decay": 0.9}}
    two_workers_find_the_masks_of_one_process(name, tmp_path, SHARDED, task=task)
