"""Every BLIP family: the sliced model is exactly the masked one, and costs what it should."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.models.blip_models import FAMILIES, Family, sliced, tiny
from tests.slicing import TOLERANCE, difference, masked, random_keep
from upop_ray.models import MODELS
from upop_ray.models.blip.layers import VisionAttention
from upop_ray.models.spec import eager_attention
from upop_ray.pruning.cost import count_macs, count_parameters, removed_cost, unit_costs
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.site import Site, keep_all, kept_counts, linear


@pytest.fixture(params=list(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture
def model(family: Family) -> PreTrainedModel:
    return tiny(family)


@pytest.fixture
def sites(family: Family, model: PreTrainedModel) -> tuple[Site, ...]:
    return family.spec.sites(model)


def test_the_registry_holds_the_family(name: str, family: Family) -> None:
    assert MODELS[name] is family.spec


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_sliced_equals_masked(family: Family, model: PreTrainedModel, sites: tuple[Site, ...], share: float) -> None:
    keep = random_keep(sites, share)
    reference = masked(family.spec, model, keep)
    for batch in (family.batch(), family.spec.example(model)):
        assert difference(family.spec, reference, sliced(family, model, keep), batch) < TOLERANCE
        assert difference(family.spec, reference, model, batch) > 1000 * TOLERANCE
    if share == 0.0:
        assert set(kept_counts(keep).values()) == {1}


def test_each_site_changes_the_outputs(family: Family, model: PreTrainedModel, sites: tuple[Site, ...]) -> None:
    gated, batch = copy.deepcopy(model), family.batch()
    gates = Gates(gated, sites)
    gates.attach(gated)
    for site in sites:
        keep = keep_all(sites)
        keep[site.name][1:] = False
        gates.shrink(keep, 0.0)
        assert difference(family.spec, gated, model, batch) > 1e-3, site.name


def test_both_attention_implementations_keep_the_dense_scale(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...]
) -> None:
    keep = random_keep(sites, 0.4)
    other = sliced(family, model, keep)
    assert other.config._attn_implementation == "sdpa"
    other.set_attn_implementation("eager")
    assert difference(family.spec, masked(family.spec, model, keep), other, family.batch()) < TOLERANCE


def test_a_slice_that_keeps_all_is_the_dense_model(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...]
) -> None:
    whole = sliced(family, model, keep_all(sites))
    assert isinstance(whole, family.sliced)
    assert difference(family.spec, model, whole, family.batch()) == 0
    assert count_parameters(whole) == count_parameters(model)


def test_a_sliced_model_can_be_sliced_again(family: Family, model: PreTrainedModel, sites: tuple[Site, ...]) -> None:
    first = random_keep(sites, 0.6)
    once = sliced(family, model, first)
    inner = family.spec.sites(once)
    assert {site.name: site.units for site in inner} == kept_counts(first)
    second = random_keep(inner, 0.5, seed=1)
    twice = sliced(family, once, second)
    # both masks in the units of the dense model
    joint = {name: mask.clone() for name, mask in first.items()}
    for name, mask in first.items():
        joint[name][mask] = second[name]
    assert difference(family.spec, masked(family.spec, model, joint), twice, family.batch()) < TOLERANCE
    assert kept_counts(joint) == twice.config.kept_units


@contextmanager
def multiplied(model: nn.Module, sites: tuple[Site, ...], gates: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply activations, as the paper writes it."""
    handles = [
        linear(model, slot).register_forward_hook(
            lambda module, inputs, output, gate=gates[site.name], groups=slot.groups: output * gate.repeat(groups)
        )
        for site in sites
        for slot in site.producers
    ]
    yield
    for handle in handles:
        handle.remove()


def loss_of(family: Family, model: PreTrainedModel) -> Tensor:
    outputs = family.spec.outputs(
        model, {k: v.double() if v.is_floating_point() else v for k, v in family.batch().items()}
    )
    return sum((output**2).mean() for output in outputs)  # type: ignore[return-value]


def test_gradients_of_gates_are_those_of_multiplied_activations(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...]
) -> None:
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    values = {
        site.name: torch.rand(site.units, generator=generator, dtype=torch.float64).requires_grad_() for site in sites
    }
    with multiplied(model, sites, values):
        expected = loss_of(family, model)
        expected.backward()
    gates = Gates(model, sites)
    gates.load({name: value.detach() for name, value in values.items()}, gates.scores())
    gates.attach(model)
    found = loss_of(family, model)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for name, score in gates.scores().items():
        torch.testing.assert_close(score, values[name].grad, rtol=1e-9, atol=1e-12)
        assert score.abs().max() > 1e-6, name


@pytest.mark.parametrize("seed", [0, 1])
def test_costs_of_a_random_slice_add_up(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # of each site another share, so that no wrong cost hides behind another
    shares = torch.rand(len(sites), generator=generator).tolist()
    keep = {site.name: random_keep((site,), share)[site.name] for site, share in zip(sites, shares, strict=True)}
    smaller = sliced(family, model, keep)
    parameters = unit_costs(model, sites, "params", family.spec.paper_attention_cost)
    macs = unit_costs(model, sites, "macs", family.spec.paper_attention_cost)
    dense, found = family.spec.size(model), family.spec.size(smaller)
    assert dense.parameters - found.parameters == removed_cost(keep, parameters)
    assert dense.macs - found.macs == removed_cost(keep, macs)


def test_operations_are_counted_with_eager_attention(family: Family, model: PreTrainedModel) -> None:
    with eager_attention(model):
        expected = count_macs(model, family.spec.example(model))
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert family.spec.size(model).macs == expected


def test_the_example_is_the_same_each_time(family: Family, model: PreTrainedModel) -> None:
    torch.manual_seed(0)
    first = family.spec.example(model)
    torch.manual_seed(1)
    second = family.spec.example(model)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_copies_keep_the_corrected_attention(family: Family, model: PreTrainedModel) -> None:
    copied = copy.deepcopy(model)
    assert sum(isinstance(module, VisionAttention) for module in copied.modules()) == 2
    copied.set_attn_implementation("eager")
    assert model.config.vision_config._attn_implementation == "sdpa"
