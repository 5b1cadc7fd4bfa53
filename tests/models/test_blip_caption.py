"""BLIP for captioning: transformers' logits, and the same captions dense, masked and sliced, with and without cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, PreTrainedModel

from tests.models.blip_models import END, FAMILIES, START, images, sliced, texts, tiny, tiny_config
from tests.slicing import masked, random_keep
from upop_ray.models.blip.caption import BlipCaption

FAMILY = FAMILIES["blip_caption"]
BEAMS = {"num_beams": 3, "min_length": 5, "max_length": 12, "do_sample": False}
GREEDY = {"num_beams": 1, "min_length": 5, "max_length": 12, "do_sample": False}


@pytest.fixture
def model() -> BlipCaption:
    return tiny(FAMILY)


@pytest.fixture
def reference(model: BlipCaption) -> BlipForConditionalGeneration:
    reference = BlipForConditionalGeneration(tiny_config())
    reference.load_state_dict(model.state_dict())
    return reference.eval()


def captions(model: PreTrainedModel, count: int = 3, **settings: Any) -> Tensor:
    """Generated after a prompt of two tokens."""
    prompt = torch.tensor([[START, 7, 8, END]]).repeat(count, 1)
    return model.generate(
        pixel_values=images(count), input_ids=prompt, attention_mask=torch.ones_like(prompt), **settings
    )


@torch.no_grad()
def test_it_is_the_model_of_transformers(model: BlipCaption, reference: BlipForConditionalGeneration) -> None:
    assert set(reference.state_dict()) == set(model.state_dict())
    ids, mask = texts((6, 3, 5))
    expected = reference(pixel_values=images(3), input_ids=ids, attention_mask=mask).logits
    found = model(pixel_values=images(3), input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])
    for settings in (BEAMS, GREEDY):
        assert torch.equal(captions(model, **settings), captions(reference, **settings))


@torch.no_grad()
def test_a_token_sees_those_before_it(model: BlipCaption) -> None:
    smaller = sliced(FAMILY, model, random_keep(FAMILY.spec.sites(model), 0.5))
    ids, _ = texts((6,))
    other = ids.clone()
    other[:, 4:] = 9
    first, second = (smaller(pixel_values=images(1), input_ids=each).logits for each in (ids, other))
    torch.testing.assert_close(first[:, :4], second[:, :4], rtol=0, atol=2e-6)
    assert (first[:, 4] - second[:, 4]).abs().max() > 1e-2


@torch.no_grad()
def test_padding_changes_nothing(model: BlipCaption) -> None:
    lengths = (6, 3, 5)
    ids, mask = texts(lengths)
    batch = model(pixel_values=images(3), input_ids=ids, attention_mask=mask).logits
    for row, length in enumerate(lengths):
        alone = model(pixel_values=images(3)[row : row + 1], input_ids=ids[row : row + 1, :length]).logits
        torch.testing.assert_close(alone[0], batch[row, :length], rtol=0, atol=4e-6)


@pytest.mark.parametrize("settings", [BEAMS, GREEDY], ids=["beams", "greedy"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_masked_and_sliced_say_the_same(model: BlipCaption, settings: dict[str, Any], share: float) -> None:
    keep = random_keep(FAMILY.spec.sites(model), share)
    smaller = sliced(FAMILY, model, keep)
    expected = captions(masked(FAMILY.spec, model, keep), **settings)
    assert torch.equal(captions(smaller, **settings), expected)
    assert torch.equal(captions(smaller, **settings, use_cache=False), expected)
    assert not torch.equal(expected, captions(model, **settings))


@torch.no_grad()
def test_greedy_captions_are_those_of_the_largest_logits(model: BlipCaption) -> None:
    smaller = sliced(FAMILY, model, random_keep(FAMILY.spec.sites(model), 0.5))
    ids = torch.tensor([[START, 7, 8]])
    for _ in range(6):
        logits = smaller(pixel_values=images(1), input_ids=ids).logits[:, -1]
        # not yet at its end
        logits[:, END] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(captions(smaller, 1, num_beams=1, min_length=9, max_length=9, do_sample=False), ids)


def test_images_are_captioned_alone(model: BlipCaption) -> None:
    together = captions(model, 3, **BEAMS | {"min_length": 12})
    prompt = torch.tensor([[START, 7, 8, END]])
    for row in range(3):
        alone = model.generate(
            pixel_values=images(3)[row : row + 1], input_ids=prompt.clone(), **BEAMS | {"min_length": 12}
        )
        assert torch.equal(alone[0], together[row])


def test_the_word_embeddings_stay_tied(model: BlipCaption, tmp_path: Path) -> None:
    sliced(FAMILY, model, random_keep(FAMILY.spec.sites(model), 0.5)).save_pretrained(tmp_path)
    decoder = FAMILY.sliced.from_pretrained(tmp_path).text_decoder
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert decoder.cls.predictions.decoder.bias is decoder.cls.predictions.bias


def test_the_loss_of_transformers_is_still_there(model: BlipCaption, reference: BlipForConditionalGeneration) -> None:
    ids, _ = texts((6, 6))
    inputs = {"pixel_values": images(2), "input_ids": ids, "labels": ids}
    torch.testing.assert_close(model(**inputs).loss, reference(**inputs).loss)
