"""Sliced ViT and DeiT classifiers: exactly the masked ones, and transformers models like any other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from tests.slicing import assert_drops_by_unit_costs, assert_sliced_equals_masked, difference, enliven, random_keep
from upop_ray.errors import CheckpointError
from upop_ray.models.spec import Source
from upop_ray.models.vit import SPEC, SlicedViTConfig, SlicedViTForImageClassification, load_vit
from upop_ray.pruning.compress import largest_difference
from upop_ray.pruning.cost import count_parameters, unit_costs
from upop_ray.pruning.ranking import Ranking, keep_masks
from upop_ray.pruning.site import kept_counts

NAMES = ("ant", "bee", "cat", "dog", "elk")
SIZE = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: number for number, name in enumerate(NAMES)},
}


def tiny_vit() -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(**SIZE))


def tiny_deit() -> DeiTForImageClassification:
    return DeiTForImageClassification(DeiTConfig(**SIZE))


@pytest.fixture(params=[tiny_vit, tiny_deit])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    build: Callable[[], PreTrainedModel] = request.param
    model = build().eval()
    enliven(model)
    return model


@pytest.fixture
def folder(model: PreTrainedModel, tmp_path: Path) -> Path:
    """The model with an image processor; not to be changed."""
    model.save_pretrained(tmp_path / "dense")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_sliced_equals_masked(model: PreTrainedModel, share: float, attention: str) -> None:
    model.set_attn_implementation(attention)
    assert_sliced_equals_masked(SPEC, model, share)


def test_a_slice_that_keeps_all_is_the_dense_model(model: PreTrainedModel) -> None:
    sliced = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 1.0))
    assert difference(SPEC, model, sliced, SPEC.example(model)) == 0
    assert count_parameters(sliced) == count_parameters(model)


def test_a_slice_is_smaller_by_exactly_the_unit_costs(model: PreTrainedModel) -> None:
    assert_drops_by_unit_costs(SPEC, model)


def test_a_sliced_model_can_be_sliced_again(model: PreTrainedModel) -> None:
    once = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.6))
    assert type(SPEC.sliced(once, once.state_dict(), random_keep(SPEC.sites(once), 0.5))) is type(once)
    assert_sliced_equals_masked(SPEC, once, 0.5)


@pytest.mark.parametrize("auto", [AutoModelForImageClassification, AutoModel])
def test_a_saved_slice_loads_through_the_auto_classes(model: PreTrainedModel, auto: type, tmp_path: Path) -> None:
    keep = random_keep(SPEC.sites(model), 0.4)
    sliced = SPEC.sliced(model, model.state_dict(), keep)
    sliced.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["kept_units"] == kept_counts(keep)
    assert config["model_type"] == f"upop_{model.config.model_type}"
    loaded = auto.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(sliced)
    assert difference(SPEC, sliced, loaded, SPEC.example(model)) == 0


def test_a_slice_tells_the_same_classes_apart(model: PreTrainedModel, tmp_path: Path) -> None:
    sliced = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.4))
    sliced.save_pretrained(tmp_path)
    for config in (sliced.config, AutoModelForImageClassification.from_pretrained(tmp_path).config):
        assert tuple(config.id2label[number] for number in range(5)) == NAMES
        assert config.label2id == model.config.label2id
        assert config.num_labels == 5


def test_a_folder_loads_dense_and_sliced(model: PreTrainedModel, folder: Path, tmp_path: Path) -> None:
    dense, processor = load_vit(Source(folder))
    assert type(dense) is type(model) and dense.dtype == torch.float32 and not dense.training
    assert difference(SPEC, model, dense, SPEC.example(model)) == 0
    assert processor.size["height"] == 16
    sliced = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.4))
    sliced.save_pretrained(tmp_path / "sliced")
    processor.save_pretrained(tmp_path / "sliced")
    again, _ = load_vit(Source(tmp_path / "sliced"))
    assert difference(SPEC, sliced, again, SPEC.example(model)) == 0


def test_another_image_size_computes_what_transformers_interpolates_to(model: PreTrainedModel, folder: Path) -> None:
    larger, _ = load_vit(Source(folder, image_size=24))
    example = SPEC.example(larger)
    assert example["pixel_values"].shape == (1, 3, 24, 24)
    with torch.no_grad():
        expected = model(**example, interpolate_pos_encoding=True).logits
    assert largest_difference(SPEC.outputs(larger, example), (expected,)) < 1e-5


def test_a_deit_with_two_heads_is_refused(tmp_path: Path) -> None:
    DeiTForImageClassificationWithTeacher(DeiTConfig(**SIZE)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"^model\.path: .*WithTeacher, which is not supported; give") as caught:
        load_vit(Source(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_image_processor_is_an_error(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"^model\.path: cannot load"):
        load_vit(Source(tmp_path))


def test_deit_small_has_its_published_parameters_to_the_last() -> None:
    with torch.device("meta"):
        assert count_parameters(SPEC.published["small"]()) == 22_050_664


# ALGORITHM, section 6: ratio -> parameters in millions, of which the published table has that of 0.3
@pytest.mark.parametrize(("ratio", "millions"), [(0.1, 19.92), (0.2, 17.80), (0.3, 15.67), (0.4, 13.54), (0.5, 11.42)])
def test_the_published_weighting_gives_the_published_sizes_of_deit_small(ratio: float, millions: float) -> None:
    with torch.device("meta"):
        dense = SPEC.published["small"]()
    sites = SPEC.sites(dense)
    ranking = Ranking(sites, unit_costs(dense, sites, "units", SPEC.paper_attention_cost), published=True)
    generator = torch.Generator().manual_seed(0)
    keep = keep_masks({site.name: torch.randn(site.units, generator=generator) for site in sites}, ranking, ratio)
    config = SlicedViTConfig(**dense.config.to_dict(), kept_units=kept_counts(keep))
    with torch.device("meta"):
        sliced = SlicedViTForImageClassification(config)
    # a unit of attention has 0.009 million
    assert count_parameters(sliced) / 1e6 == pytest.approx(millions, abs=0.01)
