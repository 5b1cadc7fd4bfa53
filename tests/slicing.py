"""What tests of every family do with masks: draw them, apply them, and compare what is left."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.compress import largest_difference
from upop_ray.pruning.cost import count_macs, count_parameters, removed_cost, unit_costs
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.site import Keep, Site

TOLERANCE = 1e-5


def random_keep(sites: tuple[Site, ...], share: float, seed: int = 0) -> dict[str, Tensor]:
    """About ``share`` of each site, and at least one unit."""
    generator = torch.Generator().manual_seed(seed)
    order = {site.name: torch.randperm(site.units, generator=generator) for site in sites}
    return {site.name: order[site.name] < max(1, round(share * site.units)) for site in sites}


def masked(spec: ModelSpec, model: nn.Module, keep: Keep) -> nn.Module:
    """A copy that multiplies what ``keep`` removes by zero."""
    model = copy.deepcopy(model)
    gates = Gates(model, spec.sites(model))
    gates.attach(model)
    gates.shrink(keep, 0.0)
    return model


@torch.no_grad()
def difference(spec: ModelSpec, first: nn.Module, second: nn.Module, example: Mapping[str, Tensor]) -> float:
    """Largest absolute difference between the outputs of two models."""
    return largest_difference(spec.outputs(first, example), spec.outputs(second, example))


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Weights of a size at which every one of them changes the output; those of a new model are near 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def assert_sliced_equals_masked(spec: ModelSpec, model: nn.Module, share: float) -> None:
    """The slice gives what the mask gives, which is not what the dense model gives."""
    keep, example = random_keep(spec.sites(model), share), spec.example(model)
    reference, sliced = masked(spec, model, keep), spec.sliced(model, model.state_dict(), keep)
    assert difference(spec, reference, sliced, example) < TOLERANCE
    assert difference(spec, reference, model, example) > 100 * TOLERANCE


def assert_drops_by_unit_costs(spec: ModelSpec, model: nn.Module) -> None:
    """Parameters and multiply-accumulates of a slice are those of the dense model less the costs of what left."""
    model.set_attn_implementation("eager")  # type: ignore[operator]
    sites, example = spec.sites(model), spec.example(model)
    keep = random_keep(sites, 0.4)
    sliced = spec.sliced(model, model.state_dict(), keep)
    removed = {kind: removed_cost(keep, unit_costs(model, sites, kind, 1)) for kind in ("params", "macs")}
    assert count_parameters(model) - count_parameters(sliced) == removed["params"] > 0
    assert count_macs(model, example) - count_macs(sliced, example) == removed["macs"] > 0
