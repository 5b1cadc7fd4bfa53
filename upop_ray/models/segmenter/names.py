"""Segmenter checkpoints in their original format, by mapping their names; the backbone and all layers have timm's."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from upop_ray.errors import CheckpointError
from upop_ray.models.loading import heads_of, load_file_state, load_named, unfilled
from upop_ray.models.segmenter.modeling import Segmenter, SegmenterConfig
from upop_ray.models.vit_names import HEAD_WIDTH, transformers_names

_BACKBONE, _LAYERS = "encoder.", "decoder.blocks."
#: the backbone's classifier, which no forward pass uses
_UNUSED = "encoder.head."
_DECODER = {
    "decoder.cls_emb": "decoder.class_embeddings",
    "decoder.proj_dec.weight": "decoder.input_projection.weight",
    "decoder.proj_dec.bias": "decoder.input_projection.bias",
    "decoder.proj_patch": "decoder.patch_projection",
    "decoder.proj_classes": "decoder.class_projection",
    "decoder.decoder_norm.weight": "decoder.layernorm.weight",
    "decoder.decoder_norm.bias": "decoder.layernorm.bias",
    "decoder.mask_norm.weight": "decoder.mask_layernorm.weight",
    "decoder.mask_norm.bias": "decoder.mask_layernorm.bias",
}
#: what the configuration is read from
_NEEDED = (
    "encoder.pos_embed",
    "encoder.patch_embed.proj.weight",
    "encoder.blocks.0.mlp.fc1.weight",
    "decoder.cls_emb",
)
#: of the published training, which goes on with the checkpoint
_DECODER_DROPOUT = 0.1


def load_original(path: Path, head_width: int = HEAD_WIDTH) -> Segmenter:
    """The Segmenter of a file in the original format, ``{"model": state}``, in fp32 and evaluation mode.

    :param head_width: no shape in a state dict tells it
    :raises CheckpointError: the file cannot be read, or is no Segmenter of a plain ViT with a mask transformer
    """
    state = load_file_state(path)
    missing = [name for name in _NEEDED if name not in state]
    if missing:
        raise CheckpointError(
            f"model.path: {path} is no Segmenter with a mask transformer in the original names, it lacks {missing[0]}; "
            "give one of those, or a transformers folder"
        )
    if "encoder.dist_token" in state:
        raise CheckpointError(
            f"model.path: {path} has the distillation token of a DeiT, which is not supported; "
            "give a Segmenter on a plain ViT"
        )
    model = unfilled(Segmenter, _config(state, path, head_width))
    load_named(model, renamed(state), path)
    model.eval()
    return model


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names, without the backbone's classifier; what has no counterpart stays as it is."""
    backbone, layers, others = {}, {}, {}
    for name, value in state.items():
        if name.startswith(_BACKBONE) and not name.startswith(_UNUSED):
            backbone[name.removeprefix(_BACKBONE)] = value
        elif name.startswith(_LAYERS):
            layers[name.removeprefix("decoder.")] = value
        elif not name.startswith(_UNUSED):
            others[_DECODER.get(name, name)] = value
    in_decoder = {f"decoder.{name.removeprefix('vit.')}": value for name, value in transformers_names(layers).items()}
    return transformers_names(backbone) | in_decoder | others


def _config(state: Mapping[str, Tensor], path: Path, head_width: int) -> SegmenterConfig:
    """The configuration that the shapes of a state dict in the original names imply."""
    width, channels, patch, _ = state["encoder.patch_embed.proj.weight"].shape
    return SegmenterConfig(
        hidden_size=width,
        num_hidden_layers=_layers(state, "encoder.blocks."),
        num_attention_heads=heads_of(width, head_width, path),
        intermediate_size=len(state["encoder.blocks.0.mlp.fc1.weight"]),
        image_size=patch * round((state["encoder.pos_embed"].shape[1] - 1) ** 0.5),
        patch_size=patch,
        num_channels=channels,
        num_labels=state["decoder.cls_emb"].shape[1],
        decoder_layers=_layers(state, _LAYERS),
        decoder_dropout=_DECODER_DROPOUT,
    )


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith(".norm1.weight") for name in state)
