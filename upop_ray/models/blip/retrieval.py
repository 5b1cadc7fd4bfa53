"""BLIP for image-text retrieval: two encoders to contrast, and a head that tells whether a caption matches an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BlipConfig, BlipForImageTextRetrieval, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from upop_ray.models.blip.family import (
    SlicedBlipConfig,
    example_inputs,
    load_blip,
    narrow_blip,
    published_config,
    slice_blip,
    text_length,
)
from upop_ray.models.blip.layers import CorrectedBlip, TextStack, text_sites, vision_sites, vision_tokens
from upop_ray.models.sliced import make_known
from upop_ray.models.spec import ModelSpec, Size, Source
from upop_ray.pruning.cost import count_macs, count_parameters
from upop_ray.pruning.site import Keep, Site

INITIAL_TEMPERATURE = 0.07
#: tokens of a caption in the published runs
CAPTION_TOKENS = 35


@dataclass
class BlipRetrievalOutput(ModelOutput):  # type: ignore[misc]
    """What :meth:`BlipRetrieval.forward` was given the inputs for.

    :param image_embeds: (batch, 256), of length 1
    :param text_embeds: (batch, 256), of length 1
    :param image_states: (batch, image tokens, vision width), what cross attention looks at
    :param temperature: scalar that similarities are divided by; a copy, since under ZeRO-3 a parameter is whole only
        inside the forward pass
    :param itm_score: (batch, 2), logits of no match and match
    """

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    image_states: Tensor | None = None
    temperature: Tensor | None = None
    itm_score: Tensor | None = None


class BlipRetrieval(CorrectedBlip, BlipForImageTextRetrieval):
    """BLIP's retrieval model of transformers with the learned temperature, which transformers' checkpoints lack."""

    _keys_to_ignore_on_load_missing = ("temperature",)

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        self.temperature = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE))

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_states: Tensor | None = None,
    ) -> BlipRetrievalOutput:
        """Features of images and captions with ``pixel_values``; matching scores with ``image_states``.

        :param pixel_values: (batch, 3, height, width)
        :param input_ids: (batch, tokens), taken as they are; the published model expects [ENC] instead of [CLS] as the
            first token of a caption that is matched
        :param attention_mask: (batch, tokens), 0 for padding
        :param image_states: (batch, image tokens, width), or (1, ...) of an image that all captions are matched with
        """
        output = BlipRetrievalOutput()
        if pixel_values is not None:
            output.image_embeds, output.image_states = self.encode_image(pixel_values)
            output.text_embeds = None if input_ids is None else self.encode_text(input_ids, attention_mask)
            output.temperature = self.temperature.clone()
        if image_states is not None:
            states = self.text_encoder(input_ids, attention_mask, encoder_hidden_states=image_states).last_hidden_state
            output.itm_score = self.itm_head(states[:, 0])
        return output

    def encode_image(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (batch, 256) of length 1, and states (batch, image tokens, width), of images."""
        states = self.vision_model(pixel_values).last_hidden_state
        return normalize(self.vision_proj(states[:, 0]), dim=-1), states

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embeddings (batch, 256) of length 1 of captions, read without an image."""
        states = self.text_encoder(input_ids, attention_mask).last_hidden_state
        return normalize(self.text_proj(states[:, 0]), dim=-1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and hasattr(self, "temperature"):
            init.constant_(self.temperature, INITIAL_TEMPERATURE)


class SlicedBlipRetrievalConfig(SlicedBlipConfig):
    """Configuration of a :class:`SlicedBlipRetrieval`."""

    model_type = "upop_blip_retrieval"


class SlicedBlipRetrieval(BlipRetrieval):
    """A :class:`BlipRetrieval` whose attention heads and MLPs have the widths of ``config.kept_units``."""

    config_class = SlicedBlipRetrievalConfig

    def __init__(self, config: SlicedBlipRetrievalConfig) -> None:
        super().__init__(config)
        narrow_blip(self, retrieval_sites(self), config.kept_units)


def register() -> None:
    """Make :class:`SlicedBlipRetrieval` known to the Auto classes of transformers."""
    make_known(SlicedBlipRetrieval)


def load_retrieval(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a BLIP for retrieval (dense or sliced before) in fp32 with its processor.

    :raises CheckpointError: it is missing, is another model, or lacks weights
    """
    return load_blip(source, "retrieval", BlipRetrieval, SlicedBlipRetrieval)


def retrieval_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of the vision tower, then of the text encoder, which an example passes alone and with its image."""
    stack = TextStack(
        "text_encoder.encoder",
        "text",
        text_length(model, CAPTION_TOKENS),
        vision_tokens(model, "vision_model"),
        passes=2,
    )
    return (*vision_sites(model, "vision_model"), *text_sites(model, stack))


def sliced_retrieval(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedBlipRetrieval:
    """The smaller model with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, BlipRetrieval)
    return slice_blip(SlicedBlipRetrieval, model, state, retrieval_sites(model), keep)


def retrieval_example(model: nn.Module) -> dict[str, Tensor]:
    """One image and one caption of full length to encode, and states of an image to match the caption with."""
    inputs = example_inputs(model, input_ids=text_length(model, CAPTION_TOKENS))
    width: int = model.config.vision_config.hidden_size  # type: ignore[union-attr, assignment]
    # the vision tower ends in a layer norm, so its states are about this large
    states = torch.randn(1, vision_tokens(model, "vision_model"), width, generator=torch.Generator().manual_seed(1))
    return inputs | {"image_states": states.to(inputs["input_ids"].device)}


def retrieval_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Image features and states, text features, and matching scores."""
    output = model(**example)
    return output.image_embeds, output.image_states, output.text_embeds, output.itm_score


def retrieval_paper_size(model: nn.Module) -> Size:
    """Online and momentum model in training on one example, as the paper's table counts them.

    Both encode image and caption; the online model matches one positive and two negative pairs. The matching head and
    the temperature have no momentum twin.
    """
    assert isinstance(model, BlipRetrieval)
    example = retrieval_example(model)
    states = {"image_states": example.pop("image_states"), "input_ids": example["input_ids"]}
    macs = 2 * count_macs(model, example) + 3 * count_macs(model, states)
    parameters = 2 * count_parameters(model) - count_parameters(model.itm_head) - 1
    counted = "online and momentum model; one image and one caption of 35 tokens encoded by both, three pairs matched"
    return Size(parameters, macs, counted)


SPEC = ModelSpec(
    tasks=("retrieval_itm",),
    load=load_retrieval,
    sites=retrieval_sites,
    sliced=sliced_retrieval,
    example=retrieval_example,
    outputs=retrieval_outputs,
    paper_attention_cost=36,
    published={
        "base": lambda: BlipRetrieval(published_config("base", 384)),
        "large": lambda: BlipRetrieval(published_config("large", 384)),
    },
    paper_size=retrieval_paper_size,
)
