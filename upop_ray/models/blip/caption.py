"""BLIP for captioning: a vision tower and a text decoder that looks at it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, BlipForConditionalGeneration, PreTrainedModel

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
from upop_ray.models.spec import ModelSpec, Source
from upop_ray.pruning.site import Keep, Site

#: tokens of a caption, as the paper's table counts operations
CAPTION_TOKENS = 15


class BlipCaption(CorrectedBlip, BlipForConditionalGeneration):
    """BLIP's captioning model of transformers; ``generate`` and all outputs are those of transformers."""

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Logits (batch, tokens, vocabulary) of the token after each token of a caption.

        :param pixel_values: (batch, 3, height, width)
        :param input_ids: (batch, tokens)
        :param attention_mask: (batch, tokens), 0 for padding
        :param kwargs: others of transformers' class
        """
        # generation calls the decoder itself; here a cache would only copy keys and values
        return super().forward(pixel_values, input_ids, attention_mask, use_cache=False, **kwargs)


class SlicedBlipCaptionConfig(SlicedBlipConfig):
    """Configuration of a :class:`SlicedBlipCaption`."""

    model_type = "upop_blip_caption"


class SlicedBlipCaption(BlipCaption):
    """A :class:`BlipCaption` whose attention heads and MLPs have the widths of ``config.kept_units``."""

    config_class = SlicedBlipCaptionConfig

    def __init__(self, config: SlicedBlipCaptionConfig) -> None:
        super().__init__(config)
        narrow_blip(self, caption_sites(self), config.kept_units)


def register() -> None:
    """Make :class:`SlicedBlipCaption` known to the Auto classes of transformers."""
    make_known(SlicedBlipCaption, AutoModelForImageTextToText)


def load_caption(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a BLIP for captioning (dense or sliced before) in fp32 with its processor.

    :raises CheckpointError: it is missing, is another model, or lacks weights
    """
    return load_blip(source, "caption", BlipCaption, SlicedBlipCaption)


def caption_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of the vision tower, then of the text decoder."""
    tokens = text_length(model, CAPTION_TOKENS)
    stack = TextStack("text_decoder.bert.encoder", "text", tokens, vision_tokens(model, "vision_model"))
    return (*vision_sites(model, "vision_model"), *text_sites(model, stack))


def sliced_caption(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedBlipCaption:
    """The smaller model with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, BlipCaption)
    return slice_blip(SlicedBlipCaption, model, state, caption_sites(model), keep)


def caption_example(model: nn.Module) -> dict[str, Tensor]:
    """One image and one caption of full length."""
    return example_inputs(model, input_ids=text_length(model, CAPTION_TOKENS))


def caption_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """States of the image, and logits of the caption."""
    output = model(**example)
    return output.image_embeds, output.logits


SPEC = ModelSpec(
    tasks=("caption",),
    load=load_caption,
    sites=caption_sites,
    sliced=sliced_caption,
    example=caption_example,
    outputs=caption_outputs,
    paper_attention_cost=36,
    published={
        "base": lambda: BlipCaption(published_config("base", 384)),
        "large": lambda: BlipCaption(published_config("large", 384)),
    },
)
