"""What needs a GPU: NCCL, bf16 and ZeRO-3 give a point that is as exact as on a CPU."""

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_experiment
from upop_ray.distributed.controller import run_sweep

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_point_on_gpus(tmp_path: Path, stage: int, precision: str) -> None:
    workers = min(2, torch.cuda.device_count())
    replica = {"workers": workers, "gpus_per_worker": 1.0, "backend": "nccl", "zero_stage": stage}
    result = run_sweep(tiny_experiment(tmp_path, precision=precision, replica=replica))
    assert result.exit_code == 0
    manifest = result.rows[0].manifest
    assert manifest is not None
    assert manifest["budget"]["achieved"] == pytest.approx(0.5, abs=0.005)
    assert manifest["checks"]["masked_vs_sliced"] <= 1e-5
