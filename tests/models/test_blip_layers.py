"""BLIP's attention: exact at any width, with the mask that transformers drops, and only in our own classes."""

import copy
import math

import pytest
import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextAttention

from tests.models.blip_models import FAMILIES, randomised, tiny, tiny_config
from upop_ray.models.blip.caption import BlipCaption
from upop_ray.models.blip.layers import TextAttention, VisionAttention, fold_softmax_scale
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.pruning.cost import macs_per_unit, parameters_per_unit
from upop_ray.pruning.site import Site, keep_all


def hidden(tokens: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_vision_attention_is_that_of_transformers_where_nothing_is_removed(attention: str) -> None:
    config = tiny_config().vision_config
    reference = randomised(BlipAttention(config))
    ours = copy.deepcopy(reference)
    ours.__class__ = VisionAttention
    ours.config._attn_implementation = attention
    first, second = hidden(5, 24).requires_grad_(), hidden(5, 24).requires_grad_()
    expected, probabilities = reference(first)
    found, own_probabilities = ours(second)
    torch.testing.assert_close(found, expected)
    if attention == "eager":
        torch.testing.assert_close(own_probabilities, probabilities)
    (expected**2).sum().backward()
    (found**2).sum().backward()
    torch.testing.assert_close(second.grad, first.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_vision_attention_drops_probabilities_in_training_only(attention: str) -> None:
    config = tiny_config().vision_config
    config.attention_dropout, config._attn_implementation = 0.5, attention
    layer = VisionAttention(config).train()
    x = hidden(5, 24)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_cross_attention_with_a_mask_is_that_over_the_other_tokens() -> None:
    config = tiny_config().text_config
    layer = randomised(BlipTextAttention(config, is_cross_attention=True))
    layer.__class__ = TextAttention
    texts, states = hidden(4, 32), hidden(6, 24, seed=1)
    mask = torch.tensor([0.0, 0.0, 0.0, 0.0, -1e30, -1e30]).expand(2, 1, 4, 6)
    found, probabilities = layer(texts, attention_mask=mask, encoder_hidden_states=states)
    expected, _ = layer(texts, encoder_hidden_states=states[:, :4])
    torch.testing.assert_close(found, expected)
    assert probabilities[..., 4:].abs().max() == 0


def test_self_attention_is_that_of_transformers() -> None:
    reference = randomised(BlipTextAttention(tiny_config().text_config))
    ours = copy.deepcopy(reference)
    ours.__class__ = TextAttention
    mask = torch.tensor([0.0, 0.0, 0.0, -1e30]).expand(2, 1, 4, 4)
    assert torch.equal(ours(hidden(4, 32), mask)[0], reference(hidden(4, 32), mask)[0])


def test_the_classes_of_transformers_stay_as_they_are() -> None:
    BlipVqa(tiny_config())
    modules = list(BlipForQuestionAnswering(tiny_config()).modules())
    assert not any(isinstance(module, VisionAttention | TextAttention) for module in modules)


def test_the_scale_is_folded_into_queries_of_text_alone() -> None:
    model = tiny(FAMILIES["blip_caption"])
    sites = FAMILIES["blip_caption"].spec.sites(model)
    keep = keep_all(sites)
    for name in ("vision.0.attn", "text.0.attn", "text.1.cross", "text.0.mlp"):
        keep[name][3:] = False
    state = dict(model.state_dict())
    fold_softmax_scale(state, sites, keep)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, state[name])}
    queries = ["text_decoder.bert.encoder.layer.0.attention", "text_decoder.bert.encoder.layer.1.crossattention"]
    assert changed == {f"{query}.self.query.{part}" for query in queries for part in ("weight", "bias")}
    for name in changed:
        # heads of text are 16 wide
        torch.testing.assert_close(state[name], model.state_dict()[name] * math.sqrt(3 / 16))


def published_sites(size: str, model_class: type) -> tuple[torch.nn.Module, dict[str, Site]]:
    family = {BlipRetrieval: "blip_retrieval", BlipCaption: "blip_caption", BlipVqa: "blip_vqa"}[model_class]
    spec = FAMILIES[family].spec
    with torch.device("meta"):
        model = spec.published[size]()
    return model, {site.name: site for site in spec.sites(model)}


def test_costs_of_published_units_by_hand() -> None:
    model, sites = published_sites("base", BlipCaption)
    # ALGORITHM, section 2: 12 heads of rows with biases and of columns
    assert {parameters_per_unit(model, site) for site in sites.values() if site.kind == "attention"} == {36_900}
    assert {parameters_per_unit(model, site) for site in sites.values() if site.kind == "mlp"} == {1_537}
    image, text = (384 // 16) ** 2 + 1, 15
    assert macs_per_unit(model, sites["vision.3.attn"]) == 12 * (4 * 768 * image + 2 * image**2)
    assert macs_per_unit(model, sites["text.3.attn"]) == 12 * (4 * 768 * text + 2 * text**2)
    assert macs_per_unit(model, sites["text.3.cross"]) == 12 * (2 * 768 * (text + image) + 2 * text * image)
    assert macs_per_unit(model, sites["text.3.mlp"]) == 2 * 768 * text


def test_costs_of_large_units_by_hand() -> None:
    model, sites = published_sites("large", BlipVqa)
    assert parameters_per_unit(model, sites["vision.23.attn"]) == 16 * (3 * 1025 + 1024)
    # keys and values of the encoder come from images, those of the decoder from questions
    assert parameters_per_unit(model, sites["encoder.0.cross"]) == 12 * (769 + 2 * 1025 + 768)
    assert parameters_per_unit(model, sites["decoder.0.cross"]) == 12 * (3 * 769 + 768)
    image, question, answer = (480 // 16) ** 2 + 1, 14, 5
    products = 2 * question * image
    linear = 2 * 768 * question + 2 * 1024 * image
    # one linear output of 768 a key and value, from 1024 wide states
    assert macs_per_unit(model, sites["encoder.0.cross"]) == 12 * (linear + products)
    assert macs_per_unit(model, sites["decoder.0.cross"]) == 12 * (
        2 * 768 * (answer + question) + 2 * answer * question
    )


def test_a_caption_passes_the_text_encoder_twice_in_retrieval() -> None:
    model, sites = published_sites("base", BlipRetrieval)
    assert macs_per_unit(model, sites["text.0.attn"]) == 2 * 12 * (4 * 768 * 35 + 2 * 35**2)
    assert macs_per_unit(model, sites["text.0.mlp"]) == 2 * 2 * 768 * 35
    assert macs_per_unit(model, sites["text.0.cross"]) == 12 * (2 * 768 * (35 + 577) + 2 * 35 * 577)


def test_sites_are_listed_tower_by_tower() -> None:
    names = [site.name for site in FAMILIES["blip_vqa"].spec.sites(tiny(FAMILIES["blip_vqa"]))]
    assert names == [
        *(f"vision.{layer}.{part}" for layer in range(2) for part in ("attn", "mlp")),
        *(f"encoder.{layer}.{part}" for layer in range(2) for part in ("attn", "cross", "mlp")),
        *(f"decoder.{layer}.{part}" for layer in range(2) for part in ("attn", "cross", "mlp")),
    ]


def test_sites_belong_to_towers() -> None:
    model = tiny(FAMILIES["blip_vqa"])
    towers = {site.name: (site.tower, site.kind) for site in FAMILIES["blip_vqa"].spec.sites(model)}
    assert towers["vision.0.attn"] == ("vision", "attention") and towers["vision.1.mlp"] == ("vision", "mlp")
    assert towers["encoder.0.attn"] == ("language", "attention") and towers["decoder.1.mlp"] == ("language", "mlp")
    assert towers["encoder.1.cross"] == towers["decoder.0.cross"] == ("cross", "attention")
