"""BLIP for question answering: transformers' answers, without its looking at padding, dense, masked and sliced."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BlipForQuestionAnswering, PreTrainedModel

from tests.models.blip_models import END, FAMILIES, images, randomised, sliced, texts, tiny, tiny_config
from tests.slicing import masked, random_keep
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.pruning.cost import count_macs

FAMILY = FAMILIES["blip_vqa"]
BEAMS = {"num_beams": 3, "min_length": 4, "max_length": 8, "do_sample": False}
GREEDY = BEAMS | {"num_beams": 1}
QUESTIONS = (7, 4, 5)


@pytest.fixture
def model() -> BlipVqa:
    return tiny(FAMILY)


@pytest.fixture
def smaller(model: BlipVqa) -> PreTrainedModel:
    return sliced(FAMILY, model, random_keep(FAMILY.spec.sites(model), 0.5))


def answers(model: PreTrainedModel, settings: dict[str, Any]) -> Tensor:
    ids, mask = texts(QUESTIONS)
    return model.generate(input_ids=ids, pixel_values=images(3), attention_mask=mask, **settings)


@torch.no_grad()
def test_it_is_the_model_of_transformers_without_padding() -> None:
    # texts as wide as images, or the model of transformers cannot run
    config = tiny_config(text_width=24)
    reference = randomised(BlipForQuestionAnswering(config))
    model = BlipVqa(tiny_config(text_width=24)).eval()
    assert set(model.state_dict()) == set(reference.state_dict())
    model.load_state_dict(reference.state_dict())
    questions, replies = texts((5, 5))[0], texts((4, 4), seed=1)[0]
    logits = model(images(2), questions, replies, torch.arange(2)).logits
    # shifted by one; the decoder reads the label before
    expected = reference(questions, images(2), labels=replies).loss
    torch.testing.assert_close(cross_entropy(logits[:, :-1].flatten(0, 1), replies[:, 1:].flatten()), expected)
    for settings in (BEAMS, GREEDY):
        found = model.generate(input_ids=questions, pixel_values=images(2), **settings)
        assert torch.equal(found, reference.generate(questions, images(2), **settings))


@torch.no_grad()
@pytest.mark.parametrize("which", ["dense", "sliced"])
def test_padding_of_questions_and_answers_changes_nothing(model: BlipVqa, smaller: PreTrainedModel, which: str) -> None:
    model = model if which == "dense" else smaller
    replies, rows = (2, 4, 3, 1), torch.tensor([0, 1, 2, 2])
    questions, mask = texts(QUESTIONS)
    answer_ids, answer_mask = texts(replies, seed=1)
    logits = model(images(3), questions, answer_ids, rows, mask, answer_mask).logits
    filled, filled_answers = texts(QUESTIONS, filling=9)[0], texts(replies, seed=1, filling=9)[0]
    other = model(images(3), filled, filled_answers, rows, mask, answer_mask).logits
    torch.testing.assert_close(other[answer_mask.bool()], logits[answer_mask.bool()], rtol=0, atol=1e-6)
    for answer, (row, length) in enumerate(zip(rows.tolist(), replies, strict=True)):
        question = questions[row : row + 1, : QUESTIONS[row]]
        pixels, reply = images(3)[row : row + 1], answer_ids[answer : answer + 1, :length]
        alone = model(pixels, question, reply, torch.zeros(1, dtype=torch.long)).logits
        torch.testing.assert_close(alone[0], logits[answer, :length], rtol=0, atol=4e-6)


@torch.no_grad()
def test_forward_is_encode_and_decode(model: BlipVqa) -> None:
    questions, mask = texts(QUESTIONS)
    answer_ids, answer_mask = texts((2, 4, 3, 1), seed=1)
    rows = torch.tensor([2, 0, 0, 1])
    states = model.encode(images(3), questions, mask)
    assert states.shape == (3, 7, 32)
    expected = model.decode(states[rows], mask[rows], answer_ids, answer_mask)
    assert torch.equal(model(images(3), questions, answer_ids, rows, mask, answer_mask).logits, expected)


@torch.no_grad()
def test_many_questions_can_be_about_one_image(model: BlipVqa) -> None:
    questions, mask = texts(QUESTIONS)
    shared = model.encode(images(1), questions, mask)
    torch.testing.assert_close(shared, model.encode(images(1).expand(3, -1, -1, -1), questions, mask))


@torch.no_grad()
def test_a_token_of_an_answer_sees_those_before_it(smaller: PreTrainedModel) -> None:
    questions, mask = texts((5,))
    states = smaller.encode(images(1), questions, mask)
    replies = texts((6,), seed=1)[0]
    other = replies.clone()
    other[:, 4:] = 9
    first, second = (smaller.decode(states, mask, each) for each in (replies, other))
    torch.testing.assert_close(first[:, :4], second[:, :4], rtol=0, atol=2e-6)
    assert (first[:, 4] - second[:, 4]).abs().max() > 1e-2


@pytest.mark.parametrize("settings", [BEAMS, GREEDY], ids=["beams", "greedy"])
def test_masked_and_sliced_answer_the_same(model: BlipVqa, settings: dict[str, Any]) -> None:
    keep = random_keep(FAMILY.spec.sites(model), 0.5)
    smaller = sliced(FAMILY, model, keep)
    expected = answers(masked(FAMILY.spec, model, keep), settings)
    assert torch.equal(answers(smaller, settings), expected)
    assert torch.equal(answers(smaller, settings | {"use_cache": False}), expected)
    assert not torch.equal(expected, answers(model, settings))


@pytest.mark.parametrize("settings", [BEAMS, GREEDY], ids=["beams", "greedy"])
def test_generated_answers_do_not_depend_on_the_padding_of_questions(
    smaller: PreTrainedModel, settings: dict[str, Any]
) -> None:
    together = answers(smaller, settings | {"min_length": 8})
    ids, _ = texts(QUESTIONS)
    for row, length in enumerate(QUESTIONS):
        alone = smaller.generate(
            input_ids=ids[row : row + 1, :length],
            pixel_values=images(3)[row : row + 1],
            **settings | {"min_length": 8},
        )
        assert torch.equal(alone[0], together[row])


@torch.no_grad()
def test_greedy_answers_are_those_of_the_largest_logits(smaller: PreTrainedModel) -> None:
    questions, mask = texts(QUESTIONS)
    states = smaller.encode(images(3), questions, mask)
    ids = torch.full((3, 1), smaller.decoder_start_token_id)
    for _ in range(5):
        logits = smaller.decode(states, mask, ids)[:, -1]
        # not yet at its end
        logits[:, END] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(answers(smaller, GREEDY | {"min_length": 6, "max_length": 6}), ids)


def test_the_decoder_looks_at_texts_and_the_encoder_at_images(model: BlipVqa) -> None:
    names = {"encoder": "text_encoder.encoder", "decoder": "text_decoder.bert.encoder"}
    widths = {
        name: model.get_submodule(f"{path}.layer.0.crossattention.self.key").in_features for name, path in names.items()
    }
    assert widths == {"encoder": 24, "decoder": 32}


@pytest.mark.slow
def test_operations_of_a_published_batch_grow_by_token_as_measured() -> None:
    """One image, 32 questions and 47 answers; the reference's counts by tokens of a question and of an answer."""
    with torch.device("meta"):
        model = FAMILY.spec.published["base"]()

    def macs(question: int, answer: int) -> int:
        with torch.device("meta"):
            pixels, rows = torch.zeros(1, 3, 480, 480), torch.zeros(1, dtype=torch.long)
            ids, replies = (torch.zeros(*shape, dtype=torch.long) for shape in ((32, question), (47, answer)))
        batch = {"pixel_values": pixels, "input_ids": ids, "attention_mask": None}
        return count_macs(model, batch | {"answer_ids": replies, "answer_mask": None, "answer_rows": rows})

    first, longer_answers, longer_questions = macs(13, 5), macs(13, 6), macs(14, 5)
    # ALGORITHM, section 5
    assert first == pytest.approx(182.38e9, rel=0.002)
    assert longer_answers == pytest.approx(188.19e9, rel=0.002)
    assert longer_answers - first == pytest.approx(5.81e9, rel=0.005)
    assert longer_questions - first == pytest.approx(3.74e9, rel=0.005)
