"""BLIP for retrieval: transformers' features and matching scores, a temperature, and padding that changes nothing."""

from pathlib import Path

import pytest
import torch
from transformers import BlipForImageTextRetrieval

from tests.models.blip_models import FAMILIES, images, randomised, save_processor, sliced, texts, tiny, tiny_config
from tests.slicing import random_keep
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.models.spec import Source

FAMILY = FAMILIES["blip_retrieval"]


@pytest.fixture
def model() -> BlipRetrieval:
    return tiny(FAMILY)


@pytest.fixture
def reference(model: BlipRetrieval) -> BlipForImageTextRetrieval:
    reference = BlipForImageTextRetrieval(tiny_config())
    missing = reference.load_state_dict({k: v for k, v in model.state_dict().items() if k != "temperature"})
    assert not missing.missing_keys and not missing.unexpected_keys
    return reference.eval()


@torch.no_grad()
def test_it_is_the_model_of_transformers(model: BlipRetrieval, reference: BlipForImageTextRetrieval) -> None:
    ids, mask = texts((6, 3, 5))
    features = model(pixel_values=images(3), input_ids=ids, attention_mask=mask)
    similarity = reference(ids, images(3), use_itm_head=False, attention_mask=mask).itm_score
    torch.testing.assert_close(features.image_embeds @ features.text_embeds.t(), similarity)
    matching = model(input_ids=ids, attention_mask=mask, image_states=features.image_states)
    expected = reference(ids, images(3), use_itm_head=True, attention_mask=mask)
    torch.testing.assert_close(features.image_states, expected.last_hidden_state)
    torch.testing.assert_close(matching.itm_score, expected.itm_score)


def test_outputs_are_those_whose_inputs_are_given(model: BlipRetrieval) -> None:
    ids, mask = texts((4,))
    assert set(model(pixel_values=images(1))) == {"image_embeds", "image_states", "temperature"}
    states = torch.zeros(1, 5, 24)
    assert set(model(input_ids=ids, attention_mask=mask, image_states=states)) == {"itm_score"}
    both = model(pixel_values=images(1), input_ids=ids, image_states=states)
    assert both.itm_score.shape == (1, 2) and both.text_embeds.shape == both.image_embeds.shape == (1, 20)


@torch.no_grad()
def test_methods_give_what_forward_gives(model: BlipRetrieval) -> None:
    ids, mask = texts((6, 3))
    output = model(pixel_values=images(2), input_ids=ids, attention_mask=mask)
    embeds, states = model.encode_image(images(2))
    assert torch.equal(embeds, output.image_embeds) and torch.equal(states, output.image_states)
    assert torch.equal(model.encode_text(ids, mask), output.text_embeds)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2))


@torch.no_grad()
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_padding_changes_nothing(model: BlipRetrieval, share: float) -> None:
    smaller = sliced(FAMILY, model, random_keep(FAMILY.spec.sites(model), share))
    lengths = (6, 3, 5)
    ids, mask = texts(lengths)
    other, _ = texts(lengths, filling=9)
    states = smaller.encode_image(images(3))[1]
    embeds = smaller.encode_text(ids, mask)
    scores = smaller(input_ids=ids, attention_mask=mask, image_states=states).itm_score
    torch.testing.assert_close(smaller.encode_text(other, mask), embeds, rtol=0, atol=1e-6)
    for row, length in enumerate(lengths):
        alone = ids[row : row + 1, :length]
        torch.testing.assert_close(smaller.encode_text(alone), embeds[row : row + 1], rtol=0, atol=1e-6)
        score = smaller(input_ids=alone, image_states=states[row : row + 1]).itm_score
        torch.testing.assert_close(score, scores[row : row + 1], rtol=0, atol=2e-6)


@torch.no_grad()
def test_one_image_can_be_matched_with_many_captions(model: BlipRetrieval) -> None:
    ids, mask = texts((6, 3, 5))
    states = model.encode_image(images(1))[1]
    shared = model(input_ids=ids, attention_mask=mask, image_states=states).itm_score
    repeated = model(input_ids=ids, attention_mask=mask, image_states=states.expand(3, -1, -1)).itm_score
    torch.testing.assert_close(shared, repeated)


def test_the_temperature_comes_with_features_and_learns(model: BlipRetrieval) -> None:
    temperature = model(pixel_values=images(1)).temperature
    assert torch.equal(temperature, model.temperature) and temperature is not model.temperature
    (3 * temperature).backward()
    assert model.temperature.grad == 3


def test_a_folder_of_transformers_starts_at_the_initial_temperature(
    reference: BlipForImageTextRetrieval, tmp_path: Path
) -> None:
    reference.save_pretrained(tmp_path)
    save_processor(tmp_path)
    model, _ = FAMILY.spec.load(Source(tmp_path))
    assert model.temperature == torch.tensor(0.07)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in reference.state_dict().items())


def test_a_learned_temperature_is_kept(model: BlipRetrieval, tmp_path: Path) -> None:
    with torch.no_grad():
        model.temperature.fill_(0.05)
    model.save_pretrained(tmp_path)
    save_processor(tmp_path)
    assert FAMILY.spec.load(Source(tmp_path))[0].temperature == torch.tensor(0.05)
    sites = FAMILY.spec.sites(model)
    assert sliced(FAMILY, model, random_keep(sites, 0.5)).temperature == torch.tensor(0.05)


def test_names_are_those_of_transformers_and_the_temperature(reference: BlipForImageTextRetrieval) -> None:
    ours = set(BlipRetrieval(tiny_config()).state_dict())
    assert ours == set(reference.state_dict()) | {"temperature"}


def test_lengths_are_capped_by_the_positions_of_the_model() -> None:
    assert FAMILY.spec.example(randomised(BlipRetrieval(tiny_config())))["input_ids"].shape == (1, 20)
    with torch.device("meta"):
        published = FAMILY.spec.published["base"]()
    assert FAMILY.spec.example(published)["input_ids"].shape == (1, 35)
