"""The baselines: what each removes, by hand and by its definition."""

import math

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from upop_ray.errors import UpopError
from upop_ray.models.clip import SPEC
from upop_ray.pruning.cost import removable_cost, removed_cost, unit_costs
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.methods import METHODS, searched_masks, unit_magnitudes, unsearched_masks
from upop_ray.pruning.ranking import Ranking
from upop_ray.pruning.site import Keep, Site, Slot


def ranking_of(model: CLIPModel) -> Ranking:
    sites = SPEC.sites(model)
    return Ranking(sites, unit_costs(model, sites, "params", SPEC.paper_attention_cost))


def ranking_of_equals(model: CLIPModel) -> Ranking:
    """With one cost for all units, so that the order alone decides and not what fits."""
    sites = SPEC.sites(model)
    return Ranking(sites, {site.name: 1 for site in sites})


def equal(first: Keep, second: Keep) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def linear(weight: list[list[float]], bias: list[float] | None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.weight.data = torch.tensor(weight)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def test_magnitudes_of_an_mlp_by_hand() -> None:
    model = nn.ModuleDict({"fc1": linear([[3.0], [1.0]], [4.0, 2.0]), "fc2": linear([[0.0, 2.0]], [9.0])})
    site = Site("m", "mlp", "vision", 2, (Slot("fc1", 1, 1),), (Slot("fc2", 1, 1),))
    # row and bias of fc1, column of fc2; the bias of fc2 stays whatever is removed
    expected = [math.sqrt((9 + 16 + 0) / 3), math.sqrt((1 + 4 + 4) / 3)]
    assert unit_magnitudes(model, site).tolist() == pytest.approx(expected)


def test_magnitudes_of_two_heads_by_hand() -> None:
    # rows head 0 unit 0, head 0 unit 1, head 1 unit 0, head 1 unit 1
    model = nn.ModuleDict(
        {"q": linear([[1.0], [2.0], [3.0], [4.0]], None), "out": linear([[1.0, 0.0, 2.0, 5.0]], None)}
    )
    site = Site("a", "attention", "vision", 2, (Slot("q", 2, 1),), (Slot("out", 2, 1),))
    expected = [math.sqrt((1 + 9 + 1 + 4) / 4), math.sqrt((4 + 16 + 0 + 25) / 4)]
    assert unit_magnitudes(model, site).tolist() == pytest.approx(expected)


def test_global_magnitude_removes_the_smallest_units(clip: CLIPModel) -> None:
    ranking = ranking_of_equals(clip)
    keep = unsearched_masks(clip, METHODS["magnitude"], ranking, 0.6, seed=0)
    for kind in ("attention", "mlp"):
        sites = [site for site in ranking.sites if site.kind == kind]
        sizes = torch.cat([unit_magnitudes(clip, site) for site in sites])
        stays = torch.cat([keep[site.name] for site in sites])
        assert sizes[stays].min() >= sizes[~stays].max()


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8])
def test_uniform_magnitude_removes_the_same_share_of_every_site(clip: CLIPModel, ratio: float) -> None:
    ranking = ranking_of(clip)
    keep = unsearched_masks(clip, METHODS["magnitude_uniform"], ranking, ratio, seed=0)
    shares = [((~keep[site.name]).double().mean().item(), 1 / site.units) for site in ranking.sites]
    for share, unit in shares:
        # a share is reached to the unit
        assert all(abs(share - other) <= max(unit, other_unit) for other, other_unit in shares)
    for site in ranking.sites:
        sizes = unit_magnitudes(clip, site)
        assert sizes[keep[site.name]].min() >= sizes[~keep[site.name]].max()


def test_random_is_a_function_of_the_seed_alone(clip: CLIPModel) -> None:
    ranking = ranking_of(clip)
    torch.manual_seed(0)
    first = unsearched_masks(clip, METHODS["random"], ranking, 0.5, seed=3)
    torch.manual_seed(1)
    for parameter in clip.parameters():
        nn.init.normal_(parameter)
    assert equal(unsearched_masks(clip, METHODS["random"], ranking, 0.5, seed=3), first)
    assert not equal(unsearched_masks(clip, METHODS["random"], ranking, 0.5, seed=4), first)


@pytest.mark.parametrize("method", ["magnitude", "magnitude_uniform", "random"])
@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_methods_without_a_search_meet_the_budget(clip: CLIPModel, method: str, ratio: float) -> None:
    ranking = ranking_of(clip)
    keep = unsearched_masks(clip, METHODS[method], ranking, ratio, seed=0)
    target = ratio * removable_cost(ranking.sites, ranking.costs)
    assert abs(removed_cost(keep, ranking.costs) - target) <= max(ranking.costs.values()) / 2


def test_learned_gates_remove_the_smallest_gates(clip: CLIPModel) -> None:
    ranking = ranking_of_equals(clip)
    gates = Gates(clip, ranking.sites)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for gate in gates.tensors.values():
            gate.copy_(torch.randn(gate.shape, generator=generator))
    keep = searched_masks(gates.tensors, gates.scores(), METHODS["mask"], ranking, 0.5)
    for kind in ("attention", "mlp"):
        names = [site.name for site in ranking.sites if site.kind == kind]
        sizes = torch.cat([gates.tensors[name].detach().abs() for name in names])
        stays = torch.cat([keep[name] for name in names])
        assert sizes[stays].min() >= sizes[~stays].max()


def test_learned_gates_that_are_not_finite_are_an_error(clip: CLIPModel) -> None:
    ranking = ranking_of(clip)
    gates = Gates(clip, ranking.sites)
    with torch.no_grad():
        gates.tensors["text.1.mlp"][3] = torch.nan
    with pytest.raises(UpopError, match=r"text\.1\.mlp: scores are not finite"):
        searched_masks(gates.tensors, gates.scores(), METHODS["mask"], ranking, 0.5)


def test_a_searching_method_has_no_order_before_its_search(clip: CLIPModel) -> None:
    with pytest.raises(TypeError, match="ranks after a search"):
        unsearched_masks(clip, METHODS["upop"], ranking_of(clip), 0.5, seed=0)
