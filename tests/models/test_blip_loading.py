"""Every BLIP family: slices and folders of transformers load like any other model, and what does not fit is told."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForVisualQuestionAnswering,
    BertConfig,
    BertModel,
    PreTrainedModel,
)

from tests.models.blip_models import FAMILIES, Family, images, save_processor, sliced, tiny, tiny_config
from tests.slicing import TOLERANCE, difference, masked, random_keep
from upop_ray.errors import CheckpointError
from upop_ray.models.spec import Source
from upop_ray.pruning.cost import count_parameters
from upop_ray.pruning.site import Site, keep_all, kept_counts

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


def test_load_takes_a_folder_of_transformers(family: Family, tmp_path: Path) -> None:
    published = family.dense.__mro__[2]
    assert published.__module__.startswith("transformers.")
    reference = published(tiny_config(text_width=24))
    reference.save_pretrained(tmp_path)
    save_processor(tmp_path)
    loaded, _ = family.spec.load(Source(tmp_path))
    assert type(loaded) is family.dense
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in reference.state_dict().items())


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
        assert f"holds a {type(dense).__name__}" in error_of(family, tmp_path / other)
        sliced(FAMILIES[other], dense, keep_all(FAMILIES[other].spec.sites(dense))).save_pretrained(tmp_path / "slice")
        assert f"upop_{other}" in error_of(family, tmp_path / "slice")


def test_a_folder_that_does_not_name_its_class_is_an_error_by_its_weights(tmp_path: Path) -> None:
    tiny(FAMILIES["blip_caption"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "itm_head.bias" in error_of(FAMILIES["blip_retrieval"], tmp_path)


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
