"""Checkpoints in BLIP's original format: their names in transformers, and their configuration read off their shapes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import BlipConfig

from upop_ray.errors import CheckpointError
from upop_ray.models.loading import heads_of, load_file_state

BlipKind = Literal["retrieval", "caption", "vqa", "nlvr"]

#: parts of an original model that a model of each kind holds
_PARTS: Mapping[str, tuple[str, ...]] = {
    "retrieval": ("visual_encoder", "text_encoder", "vision_proj", "text_proj", "itm_head", "temp"),
    "caption": ("visual_encoder", "text_decoder"),
    "vqa": ("visual_encoder", "text_encoder", "text_decoder"),
    "nlvr": ("visual_encoder", "text_encoder", "cls_head"),
}
_ALL_PARTS = {part for parts in _PARTS.values() for part in parts}
#: what contrastive training keeps beside the model (pre-training calls one of them ``queue_ptr``)
_QUEUES = ("image_queue", "text_queue", "idx_queue", "ptr_queue", "queue_ptr")

_BLOCK, _LAYER = r"visual_encoder\.blocks\.(\d+)\.", r"vision_model.encoder.layers.\1."
_RENAMED = (
    (r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"visual_encoder\.norm", "vision_model.post_layernorm"),
    (_BLOCK + r"norm([12])", _LAYER + r"layer_norm\2"),
    (_BLOCK + r"attn\.qkv", _LAYER + "self_attn.qkv"),
    (_BLOCK + r"attn\.proj", _LAYER + "self_attn.projection"),
    (_BLOCK + r"mlp\.(fc[12])", _LAYER + r"mlp.\2"),
    (r"cls_head", "classifier"),
    (r"temp", "temperature"),
)


def blip_checkpoint(path: Path, kind: BlipKind, head_width: int = 64) -> tuple[BlipConfig, dict[str, Tensor]]:
    """Read a checkpoint of the original BLIP.

    Parts that a model of this kind lacks, momentum copies and queues are left out; names that are unknown stay as they
    are, so that loading tells of them. Cross-attention of a checkpoint that was not trained on pairs of images keeps
    its single form.

    :param kind: which of BLIP's models it is for
    :param head_width: width of an attention head, which shapes do not show
    :returns: configuration, and weights under the names of the transformers classes
    :raises CheckpointError: the file cannot be read, or holds no such model
    """
    state = {name: value for name, value in load_file_state(path).items() if _belongs(name, kind)}
    return _Shapes(state, path).configuration(kind, head_width), {_renamed(name): state[name] for name in state}


def _belongs(name: str, kind: BlipKind) -> bool:
    part = name.partition(".")[0]
    known = part in _ALL_PARTS or part.removesuffix("_m") in _ALL_PARTS or part in _QUEUES
    # position_ids count from zero, and transformers' models make them
    return (part in _PARTS[kind] or not known) and not name.endswith("embeddings.position_ids")


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if found := re.match(rf"{pattern}(?=\.|$)", name):
            return found.expand(replacement) + name[found.end() :]
    return name


class _Shapes:
    """Reads a configuration off the shapes of an original state dict."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self.state = state
        self.path = path

    def configuration(self, kind: BlipKind, head_width: int) -> BlipConfig:
        text = "text_decoder.bert" if kind == "caption" else "text_encoder"
        settings: dict[str, Any] = {
            "vision_config": self._vision(head_width),
            "text_config": self._text(text, head_width),
        }
        if kind == "retrieval":
            settings["image_text_hidden_size"] = self._size("vision_proj.weight", 0)
        return BlipConfig(**settings)

    def _vision(self, head_width: int) -> dict[str, Any]:
        positions = self._size("visual_encoder.pos_embed", 1)
        patch = self._size("visual_encoder.patch_embed.proj.weight", 2)
        width = self._size("visual_encoder.cls_token", 2)
        return {
            "hidden_size": width,
            "intermediate_size": self._size("visual_encoder.blocks.0.mlp.fc1.weight", 0),
            "num_hidden_layers": self._count(r"visual_encoder\.blocks\.(\d+)\."),
            "num_attention_heads": heads_of(width, head_width, self.path),
            "image_size": patch * round((positions - 1) ** 0.5),
            "patch_size": patch,
            "layer_norm_eps": 1e-6,
        }

    def _text(self, prefix: str, head_width: int) -> dict[str, Any]:
        vocabulary = self._size(f"{prefix}.embeddings.word_embeddings.weight", 0)
        width = self._size(f"{prefix}.embeddings.word_embeddings.weight", 1)
        return {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": self._size(f"{prefix}.encoder.layer.0.intermediate.dense.weight", 0),
            "num_hidden_layers": self._count(rf"{re.escape(prefix)}\.encoder\.layer\.(\d+)\."),
            "num_attention_heads": heads_of(width, head_width, self.path),
            "max_position_embeddings": self._size(f"{prefix}.embeddings.position_embeddings.weight", 0),
            # [DEC] and [ENC] were added to BERT's vocabulary, in this order
            "bos_token_id": vocabulary - 2,
            # as trained; transformers' default is none
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        }

    def _size(self, name: str, dimension: int) -> int:
        if name not in self.state or self.state[name].dim() <= dimension:
            raise CheckpointError(
                f"model.path: {self.path} is no original BLIP checkpoint of this kind, it lacks {name}; "
                "give a transformers folder, or choose the family of the checkpoint"
            )
        return self.state[name].shape[dimension]

    def _count(self, pattern: str) -> int:
        return len({found[1] for name in self.state if (found := re.match(pattern, name))})
