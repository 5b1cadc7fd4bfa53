"""The dense shape of transformers' own class: exact where it is offered, and refused where it would not be."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip_text import BlipTextAttention

from tests.deploy.exports import subject
from upop_ray.data.checkpoints import resolve_checkpoint
from upop_ray.deploy.checks import stock_difference
from upop_ray.deploy.padded import padded, require_stock
from upop_ray.deploy.samples import samples
from upop_ray.errors import CheckpointError, ConfigError
from upop_ray.models import MODELS
from upop_ray.models.blip.layers import TextAttention
from upop_ray.models.spec import Source
from upop_ray.pruning.cost import count_parameters

STOCK = {
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "blip_caption": "BlipForConditionalGeneration",
    "blip_retrieval": "BlipForImageTextRetrieval",
}


def saved(name: str, folder: Path) -> PreTrainedModel:
    found = subject(name)
    model = padded(found.family, found.model)
    model.save_pretrained(folder)
    found.processor.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", STOCK)
def test_the_stock_class_computes_what_the_sliced_one_does(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    assert type(model).__name__ == STOCK[name] and type(model).__module__.startswith("transformers.")
    assert stock_difference(subject(name), tmp_path) <= 1e-5


def test_it_has_the_dense_shape() -> None:
    dense, _ = MODELS["clip"].load(Source(Path(resolve_checkpoint("builtin:clip"))))
    model = padded("clip", subject("clip").model)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in dense.state_dict().items()}
    assert count_parameters(model) == count_parameters(dense)
    hidden = model.vision_model.encoder.layers[0].mlp.fc1.weight  # type: ignore[union-attr, operator]
    kept = subject("clip").model.config.kept_units["vision.0.mlp"]
    assert hidden[kept:].abs().max() == 0 and hidden[:kept].abs().sum(1).min() > 0


def test_another_softmax_scale_would_be_noticed(tmp_path: Path) -> None:
    model = saved("blip_caption", tmp_path)
    with torch.no_grad():
        model.text_decoder.bert.encoder.layer[0].attention.self.query.weight.mul_(0.7)  # type: ignore[union-attr, operator]
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="not exported"):
        stock_difference(subject("blip_caption"), tmp_path)


@pytest.mark.parametrize("family", ["blip_vqa", "blip_nlvr", "segmenter"])
def test_what_is_not_exact_is_refused_with_its_reason(family: str) -> None:
    with pytest.raises(ConfigError, match=r"--stock: .*transformers.*leave it out"):
        require_stock(family)


@torch.no_grad()
def test_transformers_answers_do_look_at_the_padding_of_questions() -> None:
    """The reason why blip_vqa is refused."""
    found = subject("blip_vqa")
    batch = samples("blip_vqa", found.model, found.processor, 3)
    assert batch["attention_mask"].min() == 0
    stock = copy.deepcopy(found.model)
    for module in stock.modules():
        if type(module) is TextAttention:
            module.__class__ = BlipTextAttention
    _, expected = found.spec.outputs(found.model, batch)
    _, answers = found.spec.outputs(stock, batch)
    longest = batch["attention_mask"].sum(1).argmax()
    assert (expected[longest] - answers[longest]).abs().max() < 1e-5
    assert (expected - answers).abs().max() > 0.1
