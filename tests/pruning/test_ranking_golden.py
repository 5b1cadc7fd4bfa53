"""The published ranking, element by element, against arrays computed by the published code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from upop_ray.pruning.ranking import Ranking, keep_masks
from upop_ray.pruning.schedule import removed_ratio
from upop_ray.pruning.site import Site

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "update.json").read_text())["cases"]
ATTENTION_COST = {"clip_small": 36, "nlvr_small": 36, "deit_small3": 12, "segmenter_small": 12}


def site_of(name: str, units: int) -> Site:
    is_attention = "attn" in name or "attention" in name
    return Site(name, "attention" if is_attention else "mlp", "vision", units, (), ())


@pytest.mark.parametrize("case", sorted(ATTENTION_COST))
def test_masks_equal_the_published_ones(case: str) -> None:
    arrays = np.load(GOLDEN / f"update_{case}.npz")
    facts = CASES[case]
    sites = tuple(site_of(name, int(np.prod(shape))) for name, shape in facts["alpha_shapes"].items())
    costs = {site.name: ATTENTION_COST[case] if site.kind == "attention" else 1 for site in sites}
    ranking = Ranking(sites, costs, published=True)
    compared = 0
    for expected in facts["expected"]:
        kind = expected["tag"].split("/")[0]
        scores = {site.name: torch.from_numpy(arrays[f"{kind}/grad/{site.name}"]) for site in sites}
        keep = keep_masks(scores, ranking, expected["pi"])
        for site in sites:
            alpha = arrays[f"{expected['tag']}/alpha/{site.name}"].reshape(-1)
            assert np.array_equal(keep[site.name].numpy(), alpha == 1), (expected["tag"], site.name)
            compared += alpha.size
    assert compared > 10_000


def test_schedule_gives_the_published_ratios() -> None:
    for facts in CASES.values():
        for expected in facts["expected"]:
            steps = 100
            step = round(expected["fraction_of_schedule"] * steps) - 1
            assert removed_ratio(step, steps, expected["p"]) == pytest.approx(expected["pi"], abs=1e-15)
