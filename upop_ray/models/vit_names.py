"""Vision transformers in the names of timm and of DeiT's published files, read from one file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from upop_ray.errors import CheckpointError
from upop_ray.models.loading import heads_of, load_file_state, load_named, unfilled

#: head width of every published size
HEAD_WIDTH = 64
#: of every published size
LAYER_NORM_EPSILON = 1e-6

_LAYERS = "blocks."
_IN_LAYER = {"norm1": "layernorm_before", "attn.proj": "attention.o_proj", "norm2": "layernorm_after"}
_OUTSIDE = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "vit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "vit.layernorm.weight",
    "norm.bias": "vit.layernorm.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
_NEEDED = (*_OUTSIDE, f"{_LAYERS}0.mlp.fc1.weight")
_SHOWN = 3


def load_timm_vit(path: Path) -> ViTForImageClassification:
    """The vision transformer of a file with timm's names, in fp32 and evaluation mode.

    :raises CheckpointError: the file cannot be read, or holds something else
    """
    return vit_of_state(load_file_state(path), path)


def vit_of_state(state: Mapping[str, Tensor], path: Path, head_width: int = HEAD_WIDTH) -> ViTForImageClassification:
    """As :func:`load_timm_vit`, of a state dict.

    :param path: names the file in errors
    :param head_width: no shape in a state dict tells it
    :raises CheckpointError: names the first entries that are missing or too many
    """
    if "dist_token" in state:
        raise CheckpointError(
            f"model.path: {path} is a DeiT distilled through a second head, which is not supported; "
            "give one without dist_token"
        )
    missing = [name for name in _NEEDED if name not in state]
    if missing:
        raise CheckpointError(
            f"model.path: {path} is no vision transformer in timm's names; it lacks {missing[:_SHOWN]}, "
            f"and starts with {list(state)[:_SHOWN]}"
        )
    model = unfilled(ViTForImageClassification, vit_config(state, path, head_width))
    load_named(model, transformers_names(state), path)
    model.eval()
    return model


def vit_config(state: Mapping[str, Tensor], path: Path, head_width: int) -> ViTConfig:
    """The configuration that the shapes of a state dict in timm's names imply.

    :raises CheckpointError: heads of this width do not fit
    """
    width, channels, patch_size, _ = state["patch_embed.proj.weight"].shape
    patches = state["pos_embed"].shape[1] - 1
    return ViTConfig(
        hidden_size=width,
        num_hidden_layers=sum(name.startswith(_LAYERS) and name.endswith(".norm1.weight") for name in state),
        num_attention_heads=heads_of(width, head_width, path),
        intermediate_size=len(state[f"{_LAYERS}0.mlp.fc1.weight"]),
        layer_norm_eps=LAYER_NORM_EPSILON,
        image_size=round(patches**0.5) * patch_size,
        patch_size=patch_size,
        num_channels=channels,
        qkv_bias=f"{_LAYERS}0.attn.qkv.bias" in state,
        num_labels=len(state["head.weight"]),
    )


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of transformers; names that it has no counterpart for stay as they are."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        result |= _renamed(name, value)
    return result


def _renamed(name: str, value: Tensor) -> dict[str, Tensor]:
    if not name.startswith(_LAYERS):
        return {_OUTSIDE.get(name, name): value}
    index, _, inner = name.removeprefix(_LAYERS).partition(".")
    module, _, kind = inner.rpartition(".")
    if module == "attn.qkv":
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"vit.layers.{index}.attention.{part}_proj.{kind}": rows for part, rows in parts}
    return {f"vit.layers.{index}.{_IN_LAYER.get(module, module)}.{kind}": value}
