"""CLIP: site map, loader and sliced model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForZeroShotImageClassification, CLIPConfig, CLIPModel, PreTrainedModel

from upop_ray.models.clip_names import load_openai_clip
from upop_ray.models.layers import Encoder, encoder_sites
from upop_ray.models.loading import load_folder, load_processor, with_image_size
from upop_ray.models.sliced import make_known, narrow_heads, slice_into
from upop_ray.models.spec import ModelSpec, Size, Source
from upop_ray.pruning.cost import count_macs, count_parameters
from upop_ray.pruning.site import Keep, Site


class SlicedCLIPConfig(CLIPConfig):
    """Configuration of a sliced CLIP: that of the dense one, and ``kept_units``, site name -> kept width."""

    model_type = "upop_clip"

    kept_units: dict[str, int] | None = None


class SlicedCLIPModel(CLIPModel):
    """A CLIP whose attention heads and MLPs have the widths of ``config.kept_units``.

    Attention keeps the softmax scale of the original head width, so the model computes what the masked one does.
    """

    config_class = SlicedCLIPConfig

    def __init__(self, config: SlicedCLIPConfig) -> None:
        super().__init__(config)
        narrow_heads(self, clip_sites(self), config.kept_units)


def register() -> None:
    """Make :class:`SlicedCLIPModel` known to the Auto classes of transformers."""
    make_known(SlicedCLIPModel, AutoModelForZeroShotImageClassification)


def load_clip(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a CLIP in fp32 with its processor: a folder (dense or sliced before), or a file with OpenAI's names.

    :raises CheckpointError: the checkpoint is missing, is not a CLIP, or lacks weights
    """
    if source.path.is_file():
        model: PreTrainedModel = load_openai_clip(source.path)
    else:
        model = load_folder(AutoModel, source.path, (CLIPConfig.model_type, SlicedCLIPConfig.model_type))
    processor = load_processor(source)
    positions = "vision_model.embeddings.position_embedding.weight"
    return with_image_size(model, source.image_size, positions, prefix=1), processor


def clip_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of a CLIP, vision tower first, attention before MLP in each layer."""
    assert isinstance(model, CLIPModel)
    vision, text = model.config.vision_config, model.config.text_config
    image_tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    encoders = (
        Encoder("vision_model.encoder.layers", "vision", "vision", vision.num_attention_heads, image_tokens),
        Encoder(
            "text_model.encoder.layers", "text", "language", text.num_attention_heads, text.max_position_embeddings
        ),
    )
    return tuple(site for encoder in encoders for site in encoder_sites(model, encoder))


def sliced_clip(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedCLIPModel:
    """The smaller CLIP with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, CLIPModel)
    return slice_into(SlicedCLIPModel, model, state, clip_sites(model), keep)


def clip_example(model: nn.Module) -> dict[str, Tensor]:
    """One image and one caption of full length, drawn from a fixed seed."""
    assert isinstance(model, CLIPModel)
    vision, text = model.config.vision_config, model.config.text_config
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, vision.num_channels, vision.image_size, vision.image_size, generator=generator)
    ids = torch.randint(3, text.vocab_size, (1, text.max_position_embeddings), generator=generator)
    ids[:, -1] = text.eos_token_id if text.eos_token_id is not None and text.eos_token_id != 2 else text.vocab_size - 1
    device = model.logit_scale.device
    return {"pixel_values": pixels.to(device), "input_ids": ids.to(device)}


def clip_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Image features, text features and logits."""
    output = model(**example)
    return output.image_embeds, output.text_embeds, output.logits_per_image


def published_clip(layers: int, width: int, text_width: int, image_size: int, patch_size: int) -> CLIPModel:
    """A CLIP of OpenAI's shape with random weights; heads are 64 wide."""
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_attention_heads": text_width // 64}
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    vision |= {"num_hidden_layers": layers, "image_size": image_size, "patch_size": patch_size}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=text_width))


def paper_size(model: nn.Module) -> Size:
    """Online and momentum model together, as the paper's table counts them."""
    macs = count_macs(model, clip_example(model))
    return Size(2 * count_parameters(model), 2 * macs, "online and momentum model, one image and one caption")


SPEC = ModelSpec(
    tasks=("retrieval",),
    load=load_clip,
    sites=clip_sites,
    sliced=sliced_clip,
    example=clip_example,
    outputs=clip_outputs,
    paper_attention_cost=36,
    published={
        "base-32": lambda: published_clip(12, 768, 512, image_size=224, patch_size=32),
        "base-16": lambda: published_clip(12, 768, 512, image_size=224, patch_size=16),
        "large-14": lambda: published_clip(24, 1024, 768, image_size=224, patch_size=14),
        "large-14-336": lambda: published_clip(24, 1024, 768, image_size=336, patch_size=14),
    },
    paper_size=paper_size,
)
