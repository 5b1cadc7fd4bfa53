"""Folded gates against gates that multiply activations, as the published code does."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPModel

from tests.golden_clip import arrays, golden_model
from upop_ray.models.clip import SPEC
from upop_ray.pruning.gates import GatedLinear, Gates
from upop_ray.pruning.site import Site, Slot


def multiply_activations(model: nn.Module, sites: tuple[Site, ...], gates: Mapping[str, Tensor]) -> None:
    """The reference: each producer's output, unit by unit, times its gate."""

    def times(gate: Tensor, groups: int) -> Callable[..., Tensor]:
        return lambda module, inputs, output: (output.unflatten(-1, (groups, -1)) * gate).flatten(-2)

    for site in sites:
        for slot in site.producers:
            model.get_submodule(slot.module).register_forward_hook(times(gates[site.name], slot.groups))


def random_gates(sites: tuple[Site, ...], dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {site.name: torch.rand(site.units, generator=generator, dtype=dtype) for site in sites}


def set_gates(gates: Gates, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, gate in gates.tensors.items():
            gate.copy_(values[name])


def both(model: CLIPModel) -> tuple[CLIPModel, Gates, CLIPModel, dict[str, Tensor]]:
    """The same model with folded gates and with gated activations, at the same random gates."""
    sites, dtype = SPEC.sites(model), model.dtype
    reference = copy.deepcopy(model)
    leaves = {name: value.requires_grad_() for name, value in random_gates(sites, dtype).items()}
    multiply_activations(reference, sites, leaves)
    gates = Gates(model, sites)
    gates.attach(model)
    set_gates(gates, leaves)
    return model, gates, reference, leaves


def relative(value: Tensor, expected: Tensor) -> float:
    return ((value.double() - expected.double()).norm() / expected.double().norm()).item()


def gradients(model: nn.Module, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    SPEC.outputs(model, example)[2].square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_folding_equals_multiplying_activations(
    dtype: torch.dtype, tolerance: float, examples: dict[str, Tensor]
) -> None:
    folded, gates, reference, leaves = both(golden_model(dtype))
    example = {name: value.to(dtype) if value.is_floating_point() else value for name, value in examples.items()}
    for ours, theirs in zip(SPEC.outputs(folded, example), SPEC.outputs(reference, example), strict=True):
        assert relative(ours, theirs) < tolerance
    ours, theirs = gradients(folded, example), gradients(reference, example)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        # a bias of the keys shifts all logits of a query alike: its gradient is 0 and what is left is rounding
        if "k_proj.bias" not in name:
            assert relative(ours[name], theirs[name]) < tolerance, name
    for name, score in gates.scores().items():
        assert relative(score, leaves[name].grad) < tolerance, name


def test_scores_equal_the_published_gradients_of_the_gates() -> None:
    expected, inputs = arrays("clip_forward"), arrays("clip_inputs")
    model = golden_model()
    sites = SPEC.sites(model)
    gates = Gates(model, sites)
    gates.attach(model)
    set_gates(gates, {site.name: expected[f"alpha/{site.name}"] for site in sites})
    example = {"pixel_values": inputs["eval_images"].double(), "input_ids": inputs["eval_tokens"]}
    logits = SPEC.outputs(model, example)[2]
    assert (logits - expected["rand/logits"]).abs().max() < 1e-9
    loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)))
    assert loss.item() == pytest.approx(expected["rand/ce_loss"].item(), abs=1e-9)
    loss.backward()
    for name, score in gates.scores().items():
        assert (score - expected[f"rand/grad/{name}"]).abs().max() < 1e-9, name


@pytest.mark.parametrize("bias", [True, False])
def test_a_gated_layer_by_autograd(bias: bool) -> None:
    # autograd through the plain formula, with two groups that share their gate
    torch.manual_seed(0)
    linear = nn.Linear(5, 6, bias=bias, dtype=torch.float64)
    plain = copy.deepcopy(linear)
    site = Site("it", "attention", "vision", 3, (Slot("0", 2, 1),), ())
    model = nn.Sequential(linear)
    gates = Gates(model, (site,))
    gates.attach(model)
    gate = torch.rand(3, dtype=torch.float64, requires_grad=True)
    set_gates(gates, {"it": gate})
    inputs = [torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    ours, theirs = model(inputs[0]), torch.cat([gate, gate]) * plain(inputs[1])
    torch.testing.assert_close(ours, theirs)
    (ours**3).sum().backward()
    (theirs**3).sum().backward()
    torch.testing.assert_close(gates.scores()["it"], gate.grad)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for mine, other in zip(linear.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def under_autocast(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = SPEC.outputs(model, example)
        outputs[2].float().square().mean().backward()
    return outputs


def test_under_bf16_autocast_folding_is_as_near_to_fp32_as_multiplying(
    clip: CLIPModel, examples: dict[str, Tensor]
) -> None:
    folded, gates, reference, leaves = both(clip)
    gradients(reference, examples)
    exact = {name: leaf.grad for name, leaf in leaves.items()}
    exact_outputs = SPEC.outputs(reference, examples)
    for leaf in leaves.values():
        leaf.grad = None
    ours, theirs = under_autocast(folded, examples), under_autocast(reference, examples)
    for low, other, high in zip(ours, theirs, exact_outputs, strict=True):
        assert relative(low, high) < 1.25 * relative(other, high)
    for name, score in gates.scores().items():
        assert score.dtype == torch.float32
        assert relative(score, exact[name]) < 1.25 * relative(leaves[name].grad, exact[name]), name


def test_gates_are_neither_parameters_nor_state(clip: CLIPModel, sites: tuple[Site, ...]) -> None:
    before, parameters = clip.state_dict(), [id(p) for p in clip.parameters()]
    gates = Gates(clip, sites)
    gates.attach(clip)
    assert list(clip.state_dict()) == list(before)
    assert [id(p) for p in clip.parameters()] == parameters
    assert sum(isinstance(module, GatedLinear) for module in clip.modules()) == sum(len(s.producers) for s in sites)
    gates.detach(clip)
    assert list(clip.state_dict()) == list(before)
    assert not any(isinstance(module, GatedLinear) for module in clip.modules())
    assert not any(hasattr(module, "gate") for module in clip.modules())


def test_a_detached_model_is_the_dense_one(
    clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor]
) -> None:
    dense = SPEC.outputs(clip, examples)
    gates = Gates(clip, sites)
    gates.attach(clip)
    gates.shrink({site.name: torch.arange(site.units) % 2 == 0 for site in sites}, 0.25)
    assert not torch.equal(SPEC.outputs(clip, examples)[2], dense[2])
    gates.detach(clip)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(SPEC.outputs(clip, examples), dense, strict=True))


def test_shrink_sets_kept_gates_to_one_and_others_to_the_value() -> None:
    site = Site("it", "mlp", "vision", 3, (Slot("0", 1, 1),), ())
    gates = Gates(nn.Sequential(nn.Linear(2, 3)), (site,))
    gates.shrink({"it": torch.tensor([True, False, True])}, 0.25)
    assert gates.tensors["it"].tolist() == [1.0, 0.25, 1.0]
    # a unit can come back
    gates.shrink({"it": torch.tensor([False, True, True])}, 0.0)
    assert gates.tensors["it"].tolist() == [0.0, 1.0, 1.0]


def test_scores_accumulate_over_steps(clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor]) -> None:
    halves = [{"pixel_values": examples["pixel_values"][part], "input_ids": examples["input_ids"]} for part in (0, 1)]
    halves = [half | {"pixel_values": half["pixel_values"][None]} for half in halves]
    single = []
    for half in halves:
        gates = Gates(clip, sites)
        gates.attach(clip)
        gradients(clip, half)
        single.append(gates.scores())
    gates = Gates(clip, sites)
    gates.attach(clip)
    assert all(not score.any() for score in gates.scores().values())
    optimizer = torch.optim.SGD(clip.parameters(), lr=0.0)
    for half in halves:
        optimizer.zero_grad()
        gradients(clip, half)
        optimizer.step()
    for name, score in gates.scores().items():
        torch.testing.assert_close(score, single[0][name] + single[1][name])


def test_loaded_gates_go_on_accumulating(clip: CLIPModel, sites: tuple[Site, ...]) -> None:
    gates = Gates(clip, sites)
    values, scores = random_gates(sites, torch.float32, 1), random_gates(sites, torch.float32, 2)
    gates.load(values, scores)
    (gates.penalty({"attention": 2.0, "mlp": 3.0})).backward()
    for site in sites:
        weight = {"attention": 2.0, "mlp": 3.0}[site.kind]
        assert torch.equal(gates.tensors[site.name].detach(), values[site.name])
        torch.testing.assert_close(gates.scores()[site.name], scores[site.name] + weight)


def test_the_penalty_is_the_weighted_sum_of_gates(clip: CLIPModel, sites: tuple[Site, ...]) -> None:
    gates = Gates(clip, sites)
    # all gates are 1: 2 layers of 64 and 512 units, 3 layers of 16 and 192
    penalty = gates.penalty({"attention": 0.5, "mlp": 0.25})
    assert penalty.item() == 0.5 * (2 * 64 + 3 * 16) + 0.25 * (2 * 512 + 3 * 192)


def test_a_slot_that_is_no_linear_layer_is_refused() -> None:
    site = Site("it", "mlp", "vision", 3, (Slot("0", 1, 1),), ())
    with pytest.raises(TypeError, match="0: a site's slot must be a linear layer, got LayerNorm"):
        Gates(nn.Sequential(nn.LayerNorm(3)), (site,))
