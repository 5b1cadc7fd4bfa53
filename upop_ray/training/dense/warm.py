"""A warm start: the vision tower of the built-in CLIP inside another model."""

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoImageProcessor, CLIPConfig

from upop_ray.data.checkpoints import BUILTIN_CHECKPOINTS, resolve_checkpoint

IMAGE_SIZE = 64
#: shape of the built-in CLIP's vision tower, in the words that all vision configs share
VISION = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_TOWER = "vision_model."


def pixel_statistics() -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel that the built-in CLIP was trained with."""
    processor = AutoImageProcessor.from_pretrained(BUILTIN_CHECKPOINTS["builtin:clip"])
    return list(processor.image_mean), list(processor.image_std)


@torch.no_grad()
def warm_vision(model: nn.Module, prefix: str) -> None:
    """Copy CLIP's vision tower into the tower at ``prefix`` of a BLIP or ViT of the same shape, in place.

    CLIP normalises its embeddings before the first layer, the others do not: mean, gain and bias of that norm are
    folded into the embeddings, its division by each token's deviation is replaced by a typical one.
    """
    state = load_file(f"{resolve_checkpoint('builtin:clip')}/model.safetensors")
    clip = {name.removeprefix(_TOWER): value.float() for name, value in state.items() if name.startswith(_TOWER)}
    config = CLIPConfig.from_pretrained(BUILTIN_CHECKPOINTS["builtin:clip"]).vision_config
    assert {name: getattr(config, name) for name in VISION} == VISION
    names = blip_names if hasattr(model.get_submodule(prefix), "post_layernorm") else vit_names
    found = names(_without_first_norm(clip))
    own = model.get_submodule(prefix).state_dict()
    assert set(found) == set(own)
    model.get_submodule(prefix).load_state_dict({name: value.reshape(own[name].shape) for name, value in found.items()})


def _without_first_norm(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's tower without its norm after the embeddings; adds the bias of the patch embedding."""
    state = dict(clip)
    gain, bias = state.pop("pre_layrnorm.weight"), state.pop("pre_layrnorm.bias")
    patches = state["embeddings.patch_embedding.weight"]  # (width, 3, patch, patch)
    positions = state["embeddings.position_embedding.weight"]  # (tokens, width)
    # of white paper, normalised: most patches of the drawings are nearly that
    typical = patches.sum((1, 2, 3)) * 2 + positions[1:].mean(0)
    scale = gain / typical.std(correction=0)
    state["embeddings.patch_embedding.weight"] = (patches - patches.mean(0)) * scale[:, None, None, None]
    centred = positions - positions.mean(1, keepdim=True)
    state["embeddings.position_embedding.weight"] = centred * scale + bias
    start = state["embeddings.class_embedding"]
    state["embeddings.class_embedding"] = (start - start.mean()) * scale
    state["embeddings.patch_embedding.bias"] = torch.zeros_like(gain)
    return state


def blip_names(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's tower in the names of a BlipVisionModel."""
    state = {}
    for name, value in _fused(clip).items():
        name = name.replace("self_attn.out_proj", "self_attn.projection")
        name = name.replace("embeddings.position_embedding.weight", "embeddings.position_embedding")
        state[name] = value
    return state


def vit_names(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's tower in the names of a ViTModel."""
    changes = (
        ("encoder.layers", "layers"),
        ("self_attn.out_proj", "attention.o_proj"),
        ("self_attn", "attention"),
        ("layer_norm1", "layernorm_before"),
        ("layer_norm2", "layernorm_after"),
        ("post_layernorm", "layernorm"),
        ("embeddings.position_embedding.weight", "embeddings.position_embeddings"),
        ("embeddings.class_embedding", "embeddings.cls_token"),
        ("embeddings.patch_embedding", "embeddings.patch_embeddings.projection"),
    )
    state = {}
    for name, value in clip.items():
        for old, new in changes:
            name = name.replace(old, new)
        state[name] = value
    return state


def _fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each layer as one matrix."""
    fused = {}
    for name, value in state.items():
        if ".q_proj." in name:
            parts = [value, state[name.replace("q_proj", "k_proj")], state[name.replace("q_proj", "v_proj")]]
            fused[name.replace("q_proj", "qkv")] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            fused[name] = value
    return fused
