"""CLIP in OpenAI's own names and shapes, read from one file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from upop_ray.errors import CheckpointError
from upop_ray.models.loading import heads_of, load_file_state, load_named, unfilled

#: head width of vision and text tower in every published size
HEAD_WIDTHS = (64, 64)

#: entries of OpenAI's files that are no weights
_FACTS = ("input_resolution", "context_length", "vocab_size")
_TOWERS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
#: multiplied from the right there, linear layers here
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_FIRST_LAYERS = tuple(f"{tower}0.mlp.c_fc.weight" for tower in _TOWERS)
_NEEDED = (*_OUTSIDE, *_TRANSPOSED, *_FIRST_LAYERS)
_SHOWN = 3


def load_openai_clip(path: Path) -> CLIPModel:
    """The CLIP of a file with OpenAI's names, in fp32 and evaluation mode.

    Momentum encoders and queues that training checkpoints of UPop hold beside it are left out.

    :raises CheckpointError: the file cannot be read, or holds something else
    """
    return clip_of_state(load_file_state(path), path)


def clip_of_state(state: Mapping[str, Tensor], path: Path, head_widths: tuple[int, int] = HEAD_WIDTHS) -> CLIPModel:
    """As :func:`load_openai_clip`, of a state dict.

    :param path: names the file in errors
    :param head_widths: of the vision and the text tower; no shape in a state dict tells them
    :raises CheckpointError: names the first entries that are missing or too many
    """
    missing = [name for name in _NEEDED if name not in state]
    if missing:
        raise CheckpointError(
            f"model.path: {path} is no CLIP with a vision transformer in OpenAI's names; it lacks {missing[:_SHOWN]}, "
            f"and starts with {list(state)[:_SHOWN]}"
        )
    model = unfilled(CLIPModel, clip_config(state, path, head_widths))
    load_named(model, transformers_names(state), path)
    model.eval()
    return model


def clip_config(state: Mapping[str, Tensor], path: Path, head_widths: tuple[int, int]) -> CLIPConfig:
    """The configuration that the shapes of a state dict in OpenAI's names imply.

    :raises CheckpointError: heads of these widths do not fit
    """
    width, channels, patch_size, _ = state["visual.conv1.weight"].shape
    patches = len(state["visual.positional_embedding"]) - 1
    vocabulary, text_width = state["token_embedding.weight"].shape
    vision = {
        **_layers(state, "visual.transformer.resblocks."),
        "hidden_size": width,
        "num_attention_heads": heads_of(width, head_widths[0], path),
        "num_channels": channels,
        "patch_size": patch_size,
        "image_size": round(patches**0.5) * patch_size,
    }
    text = {
        **_layers(state, "transformer.resblocks."),
        "hidden_size": text_width,
        "num_attention_heads": heads_of(text_width, head_widths[1], path),
        "vocab_size": vocabulary,
        "max_position_embeddings": len(state["positional_embedding"]),
        "bos_token_id": vocabulary - 2,
        # 2 selects pooling at the largest id, which is the end of the text
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=state["text_projection"].shape[1])


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of transformers; names that it has no counterpart for stay as they are."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if name not in _FACTS and not _belongs_to_training(name):
            result |= _renamed(name, value)
    return result


def _layers(state: Mapping[str, Tensor], tower: str) -> dict[str, int | str]:
    return {
        "intermediate_size": len(state[f"{tower}0.mlp.c_fc.weight"]),
        "num_hidden_layers": sum(name.startswith(tower) and name.endswith(".ln_1.weight") for name in state),
        "hidden_act": "quick_gelu",
    }


def _belongs_to_training(name: str) -> bool:
    first = name.partition(".")[0]
    return first.endswith("_m") or "queue" in first


def _renamed(name: str, value: Tensor) -> dict[str, Tensor]:
    if name in _TRANSPOSED:
        return {_TRANSPOSED[name]: value.t()}
    for theirs, ours in _TOWERS.items():
        if name.startswith(theirs):
            index, _, inner = name.removeprefix(theirs).partition(".")
            return {f"{ours}{index}.{new}": part for new, part in _renamed_in_layer(inner, value).items()}
    return {_OUTSIDE.get(name, name): value}


def _renamed_in_layer(name: str, value: Tensor) -> dict[str, Tensor]:
    module, _, kind = name.rpartition(".")
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        return {f"self_attn.{part}_proj.{kind}": rows for part, rows in zip("qkv", value.chunk(3), strict=True)}
    return {f"{_IN_LAYER.get(module, module)}.{kind}": value}
