"""Drop path: the published linear rule on the vision backbone of every family, in training alone."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from tests.slicing import enliven, masked, random_keep
from upop_ray.config import Model
from upop_ray.models import MODELS
from upop_ray.models.drop_path import DropPath, add_drop_path
from upop_ray.models.vit import SPEC

RATE = 0.4
#: layers of the vision backbone, which each have two branches
DEPTH = {"clip": 24, "siglip": 12, "vit": 12, "segmenter": 12}


def published(family: str) -> PreTrainedModel:
    sizes = MODELS[family].published
    with torch.device("meta"):
        return sizes["large-14-336" if family == "clip" else next(iter(sizes))]()


def rates(model: nn.Module) -> dict[str, float]:
    """Path of a layer -> rate of its hook."""
    hooks = {name: list(module._forward_hooks.values()) for name, module in model.named_modules()}
    return {name: hook.rate for name, found in hooks.items() for hook in found if isinstance(hook, DropPath)}


def two_layers() -> ViTForImageClassification:
    shape = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**shape, image_size=16, patch_size=4, num_labels=5))
    enliven(model)
    return model


@torch.no_grad()
def with_last_layer(model: ViTForImageClassification, attention: float, mlp: float) -> ViTForImageClassification:
    """A copy whose last layer adds its branches that many times."""
    model = copy.deepcopy(model).eval()
    last = model.vit.layers[-1]
    for layer, factor in ((last.attention.o_proj, attention), (last.mlp.fc2, mlp)):
        layer.weight *= factor
        layer.bias *= factor
    return model


def one_image(count: int) -> Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)).expand(count, -1, -1, -1)


@pytest.mark.parametrize("family", MODELS)
def test_rates_rise_linearly_over_the_vision_backbone_and_are_nowhere_else(family: str) -> None:
    model, spec = published(family), MODELS[family]
    add_drop_path(model, spec, 0.1)
    depth = DEPTH.get(family, 12)
    # of two branches in each layer; the first layer's are never dropped
    expected = torch.linspace(0, 0.1, depth)[1:].repeat_interleave(2).tolist()
    found = rates(model)
    assert list(found.values()) == pytest.approx(expected)
    assert all(name.startswith(("vision_model.encoder.layers.", "vit.layers.")) for name in found)
    assert len({model.get_submodule(name) for name in found}) == 2 * (depth - 1)


def test_whole_examples_are_dropped_and_the_others_scaled() -> None:
    torch.manual_seed(0)
    layer, hook, branch = nn.Identity(), DropPath(0.25), torch.ones(4000, 2, 3)
    dropped = hook(layer.train(), (), branch)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert bool((dropped == dropped[:, :1, :1]).all())
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(hook(layer.eval(), (), branch), branch)
    assert hook(layer.train(), (), branch.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("state", ["dense", "gated", "sliced"])
def test_an_output_is_that_of_the_branches_that_stay(state: str) -> None:
    model: nn.Module = two_layers()
    keep = random_keep(SPEC.sites(model), 0.5)
    if state == "sliced":
        model = SPEC.sliced(model, model.state_dict(), keep)
    stays = 1 / (1 - RATE)
    references = [with_last_layer(model, *factors) for factors in itertools.product((0, stays), repeat=2)]
    if state == "gated":
        model, references = masked(SPEC, model, keep), [masked(SPEC, each, keep) for each in references]
    expected = torch.cat([each(one_image(1)).logits for each in references])
    assert nn.functional.pdist(expected).min() > 1e-2
    add_drop_path(model, SPEC, RATE)
    outputs = model.train()(one_image(2000)).logits
    distances = (outputs[:, None] - expected).norm(dim=-1)
    assert distances.amin(1).max() < 1e-4
    shares = torch.bincount(distances.argmin(1)) / len(distances)
    both = torch.tensor([RATE, 1 - RATE])
    torch.testing.assert_close(shares, torch.outer(both, both).flatten(), rtol=0, atol=0.05)


@torch.no_grad()
def test_evaluation_and_a_rate_of_0_change_nothing_and_draw_nothing() -> None:
    model, plain = two_layers(), two_layers()
    add_drop_path(model, SPEC, 0.0)
    assert rates(model) == {}
    add_drop_path(model, SPEC, RATE)
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(one_image(2)).logits, plain.eval()(one_image(2)).logits)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(model.state_dict()) == list(plain.state_dict())


def test_the_same_state_of_the_generator_drops_the_same() -> None:
    model = two_layers().train()
    add_drop_path(model, SPEC, RATE)
    state = torch.get_rng_state()
    first, second = model(one_image(8)).logits, model(one_image(8)).logits
    torch.set_rng_state(state)
    assert torch.equal(model(one_image(8)).logits, first) and not torch.equal(first, second)


def test_a_slice_of_a_model_that_drops_paths_drops_none_until_told() -> None:
    model = two_layers()
    add_drop_path(model, SPEC, RATE)
    sliced = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.5))
    assert rates(sliced) == {}
    add_drop_path(sliced, SPEC, RATE)
    assert rates(sliced) == rates(model)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_leaves_something(rate: float) -> None:
    with pytest.raises(ValueError, match="drop_path"):
        Model(drop_path=rate)
