"""SigLIP: site map, loader and sliced model.

It is trained here by the contrastive loss of its task, not by the sigmoid loss that it was published with: the bias of
its logits cancels, and its temperature, 117 in the published checkpoints, is used as the bound of 100; its gradient
passes the bound.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForZeroShotImageClassification, PreTrainedModel, SiglipConfig, SiglipModel

from upop_ray.models.layers import Encoder, encoder_sites, mlp_site
from upop_ray.models.loading import load_folder, load_processor, with_image_size
from upop_ray.models.sliced import make_known, narrow_heads, slice_into
from upop_ray.models.spec import ModelSpec, Source
from upop_ray.pruning.site import Keep, Site


class SlicedSiglipConfig(SiglipConfig):
    """Configuration of a sliced SigLIP: that of the dense one, and ``kept_units``, site name -> kept width."""

    model_type = "upop_siglip"

    kept_units: dict[str, int] | None = None


class SlicedSiglipModel(SiglipModel):
    """A SigLIP whose attention heads and MLPs have the widths of ``config.kept_units``.

    Attention keeps the softmax scale of the original head width, so the model computes what the masked one does.
    """

    config_class = SlicedSiglipConfig

    def __init__(self, config: SlicedSiglipConfig) -> None:
        super().__init__(config)
        narrow_heads(self, siglip_sites(self), config.kept_units)


def register() -> None:
    """Make :class:`SlicedSiglipModel` known to the Auto classes of transformers."""
    make_known(SlicedSiglipModel, AutoModelForZeroShotImageClassification)


def load_siglip(source: Source) -> tuple[PreTrainedModel, Any]:
    """Load a SigLIP (dense or sliced before) in fp32 with its processor, whose tokenizer gives no attention mask.

    :raises CheckpointError: the folder is missing, is not a SigLIP, or lacks weights
    """
    model = load_folder(AutoModel, source.path, (SiglipConfig.model_type, SlicedSiglipConfig.model_type))
    processor = load_processor(source)
    # it was trained to look at padding: a text is read off its last token, whatever that is
    processor.tokenizer.model_input_names = ["input_ids"]
    positions = "vision_model.embeddings.position_embedding.weight"
    return with_image_size(model, source.image_size, positions, prefix=0), processor


def siglip_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of a SigLIP: vision tower, the MLP of its pooling head, text tower.

    The attention of that head is a module of torch with fused projections and stays whole.
    """
    assert isinstance(model, SiglipModel)
    vision, text = model.config.vision_config, model.config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2
    image = Encoder("vision_model.encoder.layers", "vision", "vision", vision.num_attention_heads, patches)
    head = ("vision_model.head.mlp.fc1", "vision_model.head.mlp.fc2")
    tokens = text.max_position_embeddings
    caption = Encoder("text_model.encoder.layers", "text", "language", text.num_attention_heads, tokens)
    pooling = mlp_site(model, "vision.head.mlp", "vision", head, tokens=1)
    return (*encoder_sites(model, image), pooling, *encoder_sites(model, caption))


def sliced_siglip(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedSiglipModel:
    """The smaller SigLIP with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, SiglipModel)
    return slice_into(SlicedSiglipModel, model, state, siglip_sites(model), keep)


def siglip_example(model: nn.Module) -> dict[str, Tensor]:
    """One image and one caption of full length, drawn from a fixed seed."""
    assert isinstance(model, SiglipModel)
    vision, text = model.config.vision_config, model.config.text_config
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, vision.num_channels, vision.image_size, vision.image_size, generator=generator)
    ids = torch.randint(text.vocab_size, (1, text.max_position_embeddings), generator=generator)
    device = model.logit_scale.device
    return {"pixel_values": pixels.to(device), "input_ids": ids.to(device)}


def siglip_outputs(model: nn.Module, example: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Image features, text features and logits."""
    output = model(**example)
    return output.image_embeds, output.text_embeds, output.logits_per_image


def published_siglip(image_size: int) -> SiglipModel:
    """The published base SigLIP with patches of 16, which is the default configuration, with random weights."""
    # as its tokenizer has them; those of the default configuration lie outside the vocabulary
    text = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    return SiglipModel(SiglipConfig(text_config=text, vision_config={"image_size": image_size}))


SPEC = ModelSpec(
    tasks=("retrieval",),
    load=load_siglip,
    sites=siglip_sites,
    sliced=sliced_siglip,
    example=siglip_example,
    outputs=siglip_outputs,
    paper_attention_cost=36,
    published={
        "base-16": lambda: published_siglip(image_size=224),
        "base-16-384": lambda: published_siglip(image_size=384),
    },
)
