"""Unit costs against the measured difference of really sliced models."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from tests.golden_clip import golden_model
from upop_ray.models.clip import SPEC
from upop_ray.pruning.cost import (
    count_macs,
    count_parameters,
    macs_per_unit,
    parameters_per_unit,
    removable_cost,
    removed_cost,
    unit_costs,
)
from upop_ray.pruning.site import Site, keep_all

NAMES = [site.name for site in SPEC.sites(golden_model(torch.float32))]


def measured_macs(model: CLIPModel) -> int:
    # the fused attention of CPUs is not seen by the counter
    model.set_attn_implementation("eager")
    return count_macs(model, SPEC.example(model))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("count", "per_unit"), [(count_parameters, parameters_per_unit), (measured_macs, macs_per_unit)]
)
def test_a_unit_costs_what_leaves_with_it(
    clip: CLIPModel, name: str, count: Callable[[nn.Module], int], per_unit: Callable[[nn.Module, Site], int]
) -> None:
    sites = SPEC.sites(clip)
    site = next(site for site in sites if site.name == name)
    keep = keep_all(sites)
    keep[name][torch.tensor([1, 4, 7])] = False
    sliced = SPEC.sliced(clip, clip.state_dict(), keep)
    assert count(clip) - count(sliced) == 3 * per_unit(clip, site)


def test_costs_by_hand(clip: CLIPModel) -> None:
    by_name = {site.name: site for site in SPEC.sites(clip)}
    # vision: width 128, 2 heads, 16 patches and a class token
    assert parameters_per_unit(clip, by_name["vision.0.attn"]) == 2 * (3 * (128 + 1) + 128)
    assert parameters_per_unit(clip, by_name["vision.0.mlp"]) == (128 + 1) + 128
    assert macs_per_unit(clip, by_name["vision.0.attn"]) == 17 * 2 * 4 * 128 + 2 * 2 * 17 * 17
    # text: width 48, 3 heads, 12 tokens
    assert macs_per_unit(clip, by_name["text.2.mlp"]) == 12 * 2 * 48


def test_costs_of_a_random_slice_add_up(clip: CLIPModel) -> None:
    sites = SPEC.sites(clip)
    generator = torch.Generator().manual_seed(0)
    keep = {site.name: torch.rand(site.units, generator=generator) > 0.6 for site in sites}
    sliced = SPEC.sliced(clip, clip.state_dict(), keep)
    parameters = unit_costs(clip, sites, "params", 36)
    assert count_parameters(clip) - count_parameters(sliced) == removed_cost(keep, parameters)
    macs = unit_costs(clip, sites, "macs", 36)
    assert measured_macs(clip) - measured_macs(sliced) == removed_cost(keep, macs)


def test_the_units_budget_weighs_as_the_paper_does(clip: CLIPModel) -> None:
    sites = SPEC.sites(clip)
    costs = unit_costs(clip, sites, "units", SPEC.paper_attention_cost)
    assert {costs[site.name] for site in sites if site.kind == "attention"} == {36}
    assert {costs[site.name] for site in sites if site.kind == "mlp"} == {1}
    assert removable_cost(sites, costs) == 36 * (2 * 64 + 3 * 16) + 2 * 512 + 3 * 192


def test_macs_of_a_linear_layer_by_hand() -> None:
    class Layer(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    layer = Layer(5, 7).train()
    assert count_macs(layer, {"x": torch.zeros(3, 5)}) == 3 * 5 * 7
    assert layer.training


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    assert count_parameters(nn.Sequential(first, second)) == 16
