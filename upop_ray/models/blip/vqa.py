"""BLIP for visual question answering: the question encoder looks at the image, the answer decoder at the question."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForVisualQuestionAnswering, BlipConfig, BlipForQuestionAnswering, PreTrainedModel
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from upop_ray.models.blip.family import (
    SlicedBlipConfig,
    example_inputs,
    load_blip,
    narrow_blip,
    published_config,
    slice_blip,
    text_length,
)
from upop_ray.models.blip.layers import (
    CorrectedBlip,
    TextStack,
    correct_attention,
    text_sites,
    vision_sites,
    vision_tokens,
)
from upop_ray.models.sliced import make_known
from upop_ray.models.spec import ModelSpec, Size, Source
from upop_ray.pruning.cost import count_macs, count_parameters
from upop_ray.pruning.site import Keep, Site

#: tokens of a question and of an answer, as the paper's table counts operations
QUESTION_TOKENS = 14
ANSWER_TOKENS = 5
#: the batch whose operations the paper's table gives for one image
PAPER_QUESTIONS = 32
PAPER_ANSWERS = 47


class BlipVqa(CorrectedBlip, BlipForQuestionAnswering):
    """BLIP's question answering model of transformers, whose decoder does not look at the padding of questions.

    transformers gives its decoder keys and values as wide as images, which fails unless texts are as wide.
    """

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        text = config.text_config
        if text.encoder_hidden_size != text.hidden_size:
            decoder = copy.deepcopy(text)
            decoder.encoder_hidden_size = text.hidden_size
            self.text_decoder = BlipTextLMHeadModel(decoder)
            correct_attention(self)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        answer_ids: Tensor,
        answer_rows: Tensor,
        attention_mask: Tensor | None = None,
        answer_mask: Tensor | None = None,
    ) -> Any:
        """Logits (answers, answer tokens, vocabulary) of the token after each token of an answer, as ``.logits``.

        :param pixel_values: (questions, 3, height, width), or (1, ...) of an image that all questions are about
        :param input_ids: (questions, tokens)
        :param answer_ids: (answers, answer tokens)
        :param answer_rows: (answers,) int64, the question that each answer belongs to, or (1,) where it is one for all
        :param attention_mask: (questions, tokens), 0 for padding
        :param answer_mask: (answers, answer tokens), 0 for padding
        """
        states = self.encode(pixel_values, input_ids, attention_mask)[answer_rows]
        state_mask = None if attention_mask is None else attention_mask[answer_rows]
        return self._answer(states, state_mask, answer_ids, answer_mask)

    def encode(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States (questions, tokens, width) of questions about images."""
        image_states = self.vision_model(pixel_values).last_hidden_state
        return self.text_encoder(input_ids, attention_mask, encoder_hidden_states=image_states).last_hidden_state  # type: ignore[no-any-return]

    def decode(
        self, states: Tensor, state_mask: Tensor | None, answer_ids: Tensor, answer_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (answers, answer tokens, vocabulary) of answers to questions in the same order.

        :param states: (answers, tokens, width), or (1, ...) of a question that all answers are to
        :param state_mask: (answers, tokens), 0 for padding of the question
        """
        return self._answer(states, state_mask, answer_ids, answer_mask).logits  # type: ignore[no-any-return]

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **generate_kwargs: Any
    ) -> Any:
        """Token ids of an answer to each question, by the decoder's ``generate``."""
        text = self.config.text_config
        start = torch.full((len(input_ids), 1), self.decoder_start_token_id, device=input_ids.device)
        return self.text_decoder.generate(
            input_ids=start,
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=self.encode(pixel_values, input_ids, attention_mask),
            encoder_attention_mask=attention_mask,
            **generate_kwargs,
        )

    def _answer(self, states: Tensor, state_mask: Tensor | None, ids: Tensor, mask: Tensor | None) -> Any:
        return self.text_decoder(
            ids, mask, encoder_hidden_states=states, encoder_attention_mask=state_mask, use_cache=False
        )


class SlicedBlipVqaConfig(SlicedBlipConfig):
    """Configuration of a :class:`SlicedBlipVqa`."""

    model_type = "upop_blip_vqa"


class SlicedBlipVqa(BlipVqa):
    """A :class:`BlipVqa` whose attention heads and MLPs have the widths of ``config.kept_units``."""

    config_class = SlicedBlipVqaConfig

    def __init__(self, config: SlicedBlipVqaConfig) -> None:
        super().__init__(config)
        narrow_blip(self, vqa_sites(self), config.kept_units)


def register() -> None:
    """Make :class:`SlicedBlipVqa` known to the Auto classes of transformers."""
    make_known(SlicedBlipVqa, AutoModelForVisualQuestionAnswering)


def load_vqa(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a BLIP for question answering (dense or sliced before) in fp32 with its processor.

    :raises CheckpointError: it is missing, is another model, or lacks weights
    """
    return load_blip(source, "vqa", BlipVqa, SlicedBlipVqa)


def vqa_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of the vision tower, then of the question encoder, then of the answer decoder."""
    question, answer = text_length(model, QUESTION_TOKENS), text_length(model, ANSWER_TOKENS)
    encoder = TextStack("text_encoder.encoder", "encoder", question, vision_tokens(model, "vision_model"))
    decoder = TextStack("text_decoder.bert.encoder", "decoder", answer, question)
    return (*vision_sites(model, "vision_model"), *text_sites(model, encoder), *text_sites(model, decoder))


def sliced_vqa(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedBlipVqa:
    """The smaller model with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, BlipVqa)
    return slice_blip(SlicedBlipVqa, model, state, vqa_sites(model), keep)


def vqa_example(model: nn.Module) -> dict[str, Tensor]:
    """One image with one question and one answer of full length."""
    inputs = example_inputs(
        model, input_ids=text_length(model, QUESTION_TOKENS), answer_ids=text_length(model, ANSWER_TOKENS)
    )
    rows = torch.zeros(1, dtype=torch.long, device=inputs["input_ids"].device)
    # without masks: nothing is padded, and transformers looks into masks, which the meta device cannot
    return inputs | {"answer_rows": rows}


def vqa_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """States of the questions, and logits of the answers."""
    assert isinstance(model, BlipVqa)
    states = model.encode(example["pixel_values"], example["input_ids"], example.get("attention_mask"))
    rows, mask = example["answer_rows"], example.get("attention_mask")
    state_mask = None if mask is None else mask[rows]
    return states, model.decode(states[rows], state_mask, example["answer_ids"], example.get("answer_mask"))


def vqa_paper_size(model: nn.Module) -> Size:
    """One image with 32 questions and 47 answers, as the paper's table counts them.

    The table's 186.1 G takes keys and values of the decoder from one question for all answers; from the question of
    each answer they would make it 195.2 G.
    """
    inputs = vqa_example(model)
    questions = inputs["input_ids"].expand(PAPER_QUESTIONS, -1)
    answers = inputs["answer_ids"].expand(PAPER_ANSWERS, -1)
    batch: dict[str, Any] = {"pixel_values": inputs["pixel_values"], "input_ids": questions, "attention_mask": None}
    batch |= {"answer_ids": answers, "answer_mask": None, "answer_rows": inputs["answer_rows"]}
    counted = "one image, 32 questions of 14 tokens, 47 answers of 5 tokens that look at one question"
    return Size(count_parameters(model), count_macs(model, batch), counted)


SPEC = ModelSpec(
    tasks=("vqa",),
    load=load_vqa,
    sites=vqa_sites,
    sliced=sliced_vqa,
    example=vqa_example,
    outputs=vqa_outputs,
    paper_attention_cost=36,
    published={
        "base": lambda: BlipVqa(published_config("base", 480)),
        "large": lambda: BlipVqa(published_config("large", 480)),
    },
    paper_size=vqa_paper_size,
)
