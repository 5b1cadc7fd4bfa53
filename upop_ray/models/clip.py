"""CLIP: site map, loader and sliced model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
)

from upop_ray.errors import CheckpointError
from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.compress import resize, sliced_state
from upop_ray.pruning.site import Keep, Site, Slot, Tower, kept_counts

TOWERS: tuple[tuple[Tower, str], ...] = (("vision", "vision_model"), ("language", "text_model"))
#: how site names call the towers
SITE_PREFIX = {"vision": "vision", "language": "text"}
#: either holds a whole vocabulary
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


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
        dense_sites = clip_sites(self)
        kept = dict(config.kept_units or {})
        unknown = set(kept) - {site.name for site in dense_sites}
        if unknown:
            raise CheckpointError(f"config.json: kept_units names sites the model lacks: {sorted(unknown)[:3]}")
        kept = {site.name: kept.get(site.name, site.units) for site in dense_sites}
        resize(self, dense_sites, kept)
        for site in dense_sites:
            if site.kind == "attention":
                # view() widths follow head_dim; self.scale stays that of the dense width
                self.get_submodule(site.producers[0].module.rpartition(".")[0]).head_dim = kept[site.name]


def register() -> None:
    """Make :class:`SlicedCLIPModel` known to the Auto classes of transformers."""
    AutoConfig.register(SlicedCLIPConfig.model_type, SlicedCLIPConfig, exist_ok=True)
    AutoModel.register(SlicedCLIPConfig, SlicedCLIPModel, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(SlicedCLIPConfig, SlicedCLIPModel, exist_ok=True)


def load_clip(path: Path | str) -> tuple[PreTrainedModel, Any]:
    """Load a CLIP (dense or sliced before) in fp32 with its processor.

    :raises CheckpointError: the folder is missing, is not a CLIP, or lacks weights
    """
    try:
        config = AutoConfig.from_pretrained(path)
        if config.model_type not in (CLIPConfig.model_type, SlicedCLIPConfig.model_type):
            raise CheckpointError(
                f"model.path: {path} holds a {config.model_type!r} model, model.family: clip needs 'clip'; "
                "choose the family of the checkpoint"
            )
        model, report = AutoModel.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, attn_implementation="sdpa"
        )
        processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"model.path: cannot load {path}: {_first_line(error)}") from error
    # transformers makes up an empty tokenizer, which reads every caption as the same
    if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(f"model.path: {path} holds no tokenizer; add its {' or '.join(TOKENIZER_FILES)}")
    if report["missing_keys"] or report["unexpected_keys"]:
        raise CheckpointError(
            f"model.path: {path} does not fit its config; missing {sorted(report['missing_keys'])[:3]}, "
            f"unexpected {sorted(report['unexpected_keys'])[:3]}"
        )
    return model.eval(), processor


def clip_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites of a CLIP, vision tower first, attention before MLP in each layer."""
    assert isinstance(model, CLIPModel)
    vision, text = model.config.vision_config, model.config.text_config
    tokens: Mapping[Tower, int] = {
        "vision": (vision.image_size // vision.patch_size) ** 2 + 1,
        "language": text.max_position_embeddings,
    }
    sites: list[Site] = []
    for tower, module in TOWERS:
        layers = getattr(model, module).encoder.layers
        for index, layer in enumerate(layers):
            path = f"{module}.encoder.layers.{index}"
            sites += _layer_sites(layer, path, tower, f"{SITE_PREFIX[tower]}.{index}", tokens[tower])
    return tuple(sites)


def _layer_sites(layer: Any, path: str, tower: Tower, name: str, tokens: int) -> tuple[Site, Site]:
    attention = layer.self_attn
    heads = attention.num_heads
    query, key, value, out = (Slot(f"{path}.self_attn.{part}_proj", heads, tokens) for part in ("q", "k", "v", "out"))
    return (
        Site(
            f"{name}.attn", "attention", tower, attention.q_proj.out_features // heads,
            producers=(query, key, value), consumers=(out,), product_macs=2 * heads * tokens * tokens,
        ),
        Site(
            f"{name}.mlp", "mlp", tower, layer.mlp.fc1.out_features,
            producers=(Slot(f"{path}.mlp.fc1", 1, tokens),), consumers=(Slot(f"{path}.mlp.fc2", 1, tokens),),
        ),
    )  # fmt: skip


def sliced_clip(model: nn.Module, state: Mapping[str, Tensor], keep: Keep) -> SlicedCLIPModel:
    """The smaller CLIP with the weights of ``state`` that ``keep`` leaves."""
    assert isinstance(model, CLIPModel)
    # attention widths are views of hidden_size / heads in CLIPConfig, so the kept ones are listed beside it
    settings = model.config.to_dict()
    for key in ("model_type", "architectures", "kept_units", "transformers_version"):
        settings.pop(key, None)
    config = SlicedCLIPConfig(**settings, kept_units=kept_counts(keep))
    config._attn_implementation = model.config._attn_implementation
    sliced: SlicedCLIPModel = SlicedCLIPModel(config).to(state["logit_scale"].dtype)
    sliced.load_state_dict(sliced_state(state, clip_sites(model), keep))
    sliced.eval()
    return sliced


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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


SPEC = ModelSpec(
    load=load_clip,
    sites=clip_sites,
    sliced=sliced_clip,
    example=clip_example,
    outputs=clip_outputs,
    paper_attention_cost=36,
)
