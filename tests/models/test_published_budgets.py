"""Masks of models of published size meet the budget that was asked, in every family and currency."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from upop_ray.models import MODELS
from upop_ray.pruning.cost import Budget, removable_cost, removed_cost, unit_costs
from upop_ray.pruning.ranking import Ranking, keep_masks
from upop_ray.pruning.site import Site

#: the sizes that the published runs prune; SigLIP is not among them
SIZES = {
    "clip": "large-14-336",
    "siglip": "base-16",
    "vit": "small",
    "blip_retrieval": "base",
    "blip_caption": "base",
    "blip_vqa": "base",
    "blip_nlvr": "base",
    "segmenter": "small",
}
RATIOS = (0.3, 0.5, 0.667, 0.75, 0.8, 0.9)
TOLERANCE = 0.005


def random_scores(sites: tuple[Site, ...], uneven: float) -> dict[str, Tensor]:
    """Scores of which ``uneven`` is the deviation between sites, where that within a site is 1."""
    generator = torch.Generator().manual_seed(0)
    shifts = uneven * torch.randn(len(sites), generator=generator)
    return {
        site.name: torch.randn(site.units, generator=generator) + shift
        for site, shift in zip(sites, shifts, strict=True)
    }


@pytest.mark.slow
# some sites go almost whole where scores are uneven
@pytest.mark.parametrize("uneven", [0.0, 1.0])
@pytest.mark.parametrize("budget", get_args(Budget))
@pytest.mark.parametrize("family", SIZES)
def test_the_budget_is_met(family: str, budget: Budget, uneven: float) -> None:
    spec = MODELS[family]
    with torch.device("meta"):
        model = spec.published[SIZES[family]]()
    sites = spec.sites(model)
    costs = unit_costs(model, sites, budget, spec.paper_attention_cost)
    ranking = Ranking(sites, costs, published=budget == "units")
    scores = random_scores(sites, uneven)
    for ratio in RATIOS:
        keep = keep_masks(scores, ranking, ratio)
        assert removed_cost(keep, costs) / removable_cost(sites, costs) == pytest.approx(ratio, abs=TOLERANCE)
        assert all(mask.any() for mask in keep.values())
