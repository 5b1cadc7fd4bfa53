"""BLIP-NLVR2: site map, loader and sliced model."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, BlipConfig, PreTrainedModel

from upop_ray.models.blip.family import example_inputs, narrow_blip, published_config, slice_blip, text_length
from upop_ray.models.blip.layers import TextStack, text_sites, vision_sites, vision_tokens
from upop_ray.models.blip.names import blip_checkpoint
from upop_ray.models.blip.twins import IMAGES, BlipNlvr, BlipNlvrConfig
from upop_ray.models.loading import (
    load_folder,
    load_folder_state,
    load_named,
    load_processor,
    read_model_type,
    with_image_size,
)
from upop_ray.models.sliced import make_known
from upop_ray.models.spec import ModelSpec, Size, Source
from upop_ray.pruning.cost import count_macs, count_parameters
from upop_ray.pruning.site import Keep, Site

_LOG = logging.getLogger(__name__)

#: tokens of a text, as the paper's tables count (ALGORITHM, section 5)
TEXT_TOKENS = 36
#: the cross attentions of a layer, by the names of their sites
_CROSSINGS = {
    "cross0": ("crossattention.self0", "crossattention.output.dense0"),
    "cross1": ("crossattention.self1", "crossattention.output.dense1"),
}
#: what a BLIP that was not trained on pairs of images lacks
_NEW = re.compile(r"classifier\.|.*\.merge_layer\.")
_SINGLE = re.compile(r"\.crossattention\.(self|output\.dense)\.")


class SlicedBlipNlvrConfig(BlipNlvrConfig):
    """Configuration of a sliced BLIP-NLVR2: that of the dense one, and ``kept_units``, site name -> kept width."""

    model_type = "upop_blip_nlvr"

    kept_units: dict[str, int] | None = None


class SlicedBlipNlvr(BlipNlvr):
    """A BLIP-NLVR2 whose attention heads and MLPs have the widths of ``config.kept_units``.

    Attention keeps the softmax scale of the original head width, so the model computes what the masked one does.
    """

    config_class = SlicedBlipNlvrConfig

    def __init__(self, config: SlicedBlipNlvrConfig) -> None:
        super().__init__(config)
        narrow_blip(self, nlvr_sites(self), config.kept_units)


def register() -> None:
    """Make :class:`BlipNlvr` and :class:`SlicedBlipNlvr` known to the Auto classes of transformers."""
    for model in (BlipNlvr, SlicedBlipNlvr):
        make_known(model)


def load_nlvr(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a BLIP-NLVR2 in fp32 with its processor.

    The source is a folder of ours (dense, or sliced before), a file in the original format, or in either form a BLIP
    that was not trained on pairs of images: both images then get its cross attention, and new merge layers and a new
    classifier start at random, which a warning in the log says.

    :raises CheckpointError: it is missing, is no BLIP, or lacks other weights
    """
    model = _from_file(source.path) if source.path.is_file() else _from_folder(source.path)
    processor = load_processor(source)
    return with_image_size(model, source.image_size, "vision_model.embeddings.position_embedding", prefix=1), processor


def _from_file(path: Path) -> BlipNlvr:
    return nlvr_of_blip(*blip_checkpoint(path, "nlvr"), path)


def _from_folder(path: Path) -> PreTrainedModel:
    types = (BlipNlvrConfig.model_type, SlicedBlipNlvrConfig.model_type, BlipConfig.model_type)
    if read_model_type(path, types) != BlipConfig.model_type:
        return load_folder(AutoModel, path, types)
    state = load_folder_state(path)
    towers = [name for name in state if name.startswith(("vision_model.", "text_encoder."))]
    kept = {name: state[name] for name in towers if not name.endswith("position_ids")}
    return nlvr_of_blip(BlipConfig.from_pretrained(path), kept, path)


def nlvr_of_blip(config: BlipConfig, state: Mapping[str, Tensor], path: Path) -> BlipNlvr:
    """A dense BLIP-NLVR2 of BLIP's configuration and weights, in fp32 and evaluation mode.

    :param state: under the names of the model; its cross attention may be single, as in BLIP's other models
    :param path: names the checkpoint in errors and in the log
    :raises CheckpointError: the weights do not fit the configuration
    """
    with torch.random.fork_rng(devices=[]):
        # ranks and points start from the same new layers
        torch.manual_seed(0)
        model = BlipNlvr(config)
    if any(_SINGLE.search(name) for name in state):
        state = _doubled(state)
        new = {name: value for name, value in model.state_dict().items() if _NEW.match(name) and name not in state}
        _LOG.warning("%s was not trained on pairs of images: %d new weights start at random", path, len(new))
        state |= new
    load_named(model, state, path)
    model.eval()
    return model


def _doubled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give both images the cross attention that was trained on one."""
    # a name without cross attention gives itself twice
    return {
        _SINGLE.sub(rf".crossattention.\g<1>{twin}.", name): value for name, value in state.items() for twin in (0, 1)
    }


def nlvr_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of a BLIP-NLVR2: ``vision.{i}.attn``, ``.mlp``; ``text.{i}.attn``, ``.cross0``, ``.cross1``, ``.mlp``."""
    assert isinstance(model, BlipNlvr)
    tokens = text_length(model, TEXT_TOKENS), vision_tokens(model, "vision_model")
    stack = TextStack("text_encoder.encoder", "text", *tokens, crossings=_CROSSINGS)
    return (*vision_sites(model, "vision_model", IMAGES), *text_sites(model, stack))


def sliced_nlvr(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedBlipNlvr:
    """The smaller BLIP-NLVR2 with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, BlipNlvr)
    return slice_blip(SlicedBlipNlvr, model, state, nlvr_sites(model), keep)


def nlvr_example(model: nn.Module) -> dict[str, Tensor]:
    """A text of :data:`TEXT_TOKENS` tokens, or as many as the model has positions for, with an image and its mirror."""
    inputs = example_inputs(model, input_ids=text_length(model, TEXT_TOKENS))
    pixels = inputs["pixel_values"]
    return inputs | {"pixel_values": torch.cat([pixels, pixels.flip(-1)])}


def nlvr_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The logits."""
    return (model(**example).logits,)


def published_nlvr(size: str) -> BlipNlvr:
    """A BLIP-NLVR2 of a published size, for images of 384 pixels, with random weights."""
    return BlipNlvr(published_config(size, 384))


def paper_size(model: nn.Module) -> Size:
    """One text and its two images, as the paper's table counts them."""
    counted = f"two images and a text of {TEXT_TOKENS} tokens"
    return Size(count_parameters(model), count_macs(model, nlvr_example(model)), counted)


SPEC = ModelSpec(
    tasks=("nlvr",),
    load=load_nlvr,
    sites=nlvr_sites,
    sliced=sliced_nlvr,
    example=nlvr_example,
    outputs=nlvr_outputs,
    paper_attention_cost=36,
    published={"base": lambda: published_nlvr("base"), "large": lambda: published_nlvr("large")},
    paper_size=paper_size,
)
