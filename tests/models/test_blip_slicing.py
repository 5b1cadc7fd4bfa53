"""Every BLIP family: the sliced model is exactly the masked one, costs what it should, and loads like any other."""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForVisualQuestionAnswering,
    BertConfig,
    BertModel,
    PreTrainedModel,
)

from tests.models.blip_models import FAMILIES, Family, images, save_processor, sliced, tiny
from tests.slicing import TOLERANCE, difference, masked, random_keep
from upop_ray.errors import CheckpointError
from upop_ray.models import MODELS
from upop_ray.models.blip.layers import VisionAttention
from upop_ray.models.spec import Source
from upop_ray.pruning.cost import (
    count_macs,
    count_parameters,
    removed_cost,
    unit_costs,
)
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.site import Site, keep_all, kept_counts, linear

AUTO = {
    "blip_retrieval": (AutoModel,),
    "blip_caption": (AutoModel, AutoModelForImageTextToText),
    "blip_vqa": (AutoModel, AutoModelForVisualQuestionAnswering),
}


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


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_each_attention_implementation_keeps_the_dense_scale(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...], attention: str
) -> None:
    keep = random_keep(sites, 0.4)
    other = sliced(family, model, keep)
    assert other.config._attn_implementation == "sdpa"
    other.set_attn_implementation(attention)
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


def measured_macs(family: Family, model: PreTrainedModel) -> int:
    model.set_attn_implementation("eager")
    return count_macs(model, family.spec.example(model))


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
    assert count_parameters(model) - count_parameters(smaller) == removed_cost(keep, parameters)
    assert measured_macs(family, model) - measured_macs(family, smaller) == removed_cost(keep, macs)


def test_a_saved_slice_loads_through_the_auto_classes(
    name: str, family: Family, model: PreTrainedModel, sites: tuple[Site, ...], tmp_path: Path
) -> None:
    keep = random_keep(sites, 0.4)
    smaller = sliced(family, model, keep)
    smaller.save_pretrained(tmp_path)
    for auto in AUTO[name]:
        loaded = auto.from_pretrained(tmp_path).eval()
        assert type(loaded) is family.sliced
        assert difference(family.spec, smaller, loaded, family.batch()) < 1e-6
        assert count_parameters(loaded) == count_parameters(smaller)
    assert json.loads((tmp_path / "config.json").read_text())["kept_units"] == kept_counts(keep)
    # the file holds what is kept and nothing more
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert sum(value.numel() for value in stored.values()) == count_parameters(smaller)


@pytest.fixture
def folder(model: PreTrainedModel, tmp_path: Path) -> Path:
    """The dense model as a transformers folder, with its processor."""
    model.save_pretrained(tmp_path / "dense")
    save_processor(tmp_path / "dense")
    return tmp_path / "dense"


def test_load_gives_the_corrected_class_in_fp32_with_the_processor(
    family: Family, model: PreTrainedModel, folder: Path
) -> None:
    assert json.loads((folder / "config.json").read_text())["model_type"] == "blip"
    loaded, processor = family.spec.load(Source(folder))
    assert type(loaded) is family.dense
    assert not loaded.training and loaded.dtype == torch.float32
    assert difference(family.spec, model, loaded, family.batch()) == 0
    assert processor.tokenizer(["a b"])["input_ids"] == [[2, 5, 6, 3]]
    assert processor.image_processor.size["height"] == 16


def test_load_takes_an_exported_slice(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...], tmp_path: Path
) -> None:
    smaller = sliced(family, model, random_keep(sites, 0.4))
    smaller.save_pretrained(tmp_path)
    save_processor(tmp_path)
    loaded, _ = family.spec.load(Source(tmp_path))
    assert type(loaded) is family.sliced
    assert difference(family.spec, smaller, loaded, family.batch()) < TOLERANCE
    again = sliced(family, loaded, random_keep(family.spec.sites(loaded), 0.5))
    assert count_parameters(again) < count_parameters(smaller)


def test_load_brings_the_model_to_another_image_size(family: Family, folder: Path) -> None:
    model, _ = family.spec.load(Source(folder, image_size=32))
    assert model.config.vision_config.image_size == 32
    embeddings = model.vision_model.embeddings
    assert embeddings.position_embedding.shape == (1, 17, 24)
    small, _ = family.spec.load(Source(folder))
    # transformers' own interpolation of the model for small images
    pixels = images(2, side=32)
    with torch.no_grad():
        expected = small.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(model.vision_model(pixels).last_hidden_state, expected)
        assert all(output.isfinite().all() for output in family.spec.outputs(model, family.spec.example(model)))


def test_a_resized_slice_is_still_exact(family: Family, folder: Path, sites: tuple[Site, ...]) -> None:
    model, _ = family.spec.load(Source(folder, image_size=24))
    keep = random_keep(sites, 0.5)
    example = family.spec.example(model)
    assert difference(family.spec, masked(family.spec, model, keep), sliced(family, model, keep), example) < TOLERANCE


def error_of(family: Family, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        family.spec.load(Source(folder))
    message = str(caught.value)
    assert message.startswith("model.path: ") and str(folder) in message and "\n" not in message
    return message


def test_another_family_of_blip_is_an_error(name: str, family: Family, tmp_path: Path) -> None:
    for other in FAMILIES.keys() - {name}:
        dense = tiny(FAMILIES[other])
        dense.save_pretrained(tmp_path / other)
        assert type(dense).__name__ in error_of(family, tmp_path / other)
        sliced(FAMILIES[other], dense, keep_all(FAMILIES[other].spec.sites(dense))).save_pretrained(tmp_path / "slice")
        assert f"upop_{other}" in error_of(family, tmp_path / "slice")


def test_another_model_is_an_error(family: Family, tmp_path: Path) -> None:
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=8, **size)).save_pretrained(tmp_path)
    assert "'bert'" in error_of(family, tmp_path)


def test_kept_units_of_unknown_sites_are_an_error(
    family: Family, model: PreTrainedModel, sites: tuple[Site, ...], tmp_path: Path
) -> None:
    sliced(family, model, random_keep(sites, 0.5)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["kept_units"]["vision.9.mlp"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"vision\.9\.mlp"):
        family.spec.load(Source(tmp_path))


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
