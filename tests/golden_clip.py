"""The golden tiny CLIP as a transformers model: OpenAI names mapped onto CLIPModel."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

GOLDEN = Path(__file__).parent / "golden"
FACTS = json.loads((GOLDEN / "clip.json").read_text())


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key].copy()) for key in file.files}


def golden_model(dtype: torch.dtype = torch.float64) -> CLIPModel:
    facts = FACTS["config"]
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3}
    config = CLIPConfig(
        vision_config=vision | {"image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu"},
        text_config=text
        | {"vocab_size": 64, "max_position_embeddings": facts["context_length"], "hidden_act": "quick_gelu"}
        | {"bos_token_id": 62, "eos_token_id": 2, "pad_token_id": 0},
        projection_dim=facts["embed_dim"],
    )
    model = CLIPModel(config)
    state = {name: value for name, value in arrays("clip_state_init").items() if "queue" not in name}
    model.load_state_dict(_transformers_names(state), strict=False)
    return model.to(dtype)


def _transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].t(),
        "visual_projection.weight": state["visual.proj"].t(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    for kind in ("weight", "bias"):
        result[f"vision_model.pre_layrnorm.{kind}"] = state[f"visual.ln_pre.{kind}"]
        result[f"vision_model.post_layernorm.{kind}"] = state[f"visual.ln_post.{kind}"]
        result[f"text_model.final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
    for tower, prefix, layers in (("vision_model", "visual.transformer", 2), ("text_model", "transformer", 3)):
        for index in range(layers):
            ours, theirs = f"{tower}.encoder.layers.{index}", f"{prefix}.resblocks.{index}"
            for kind in ("weight", "bias"):
                qkv = state[f"{theirs}.attn.in_proj_{kind}"].chunk(3)
                for part, value in zip("qkv", qkv, strict=True):
                    result[f"{ours}.self_attn.{part}_proj.{kind}"] = value
                result[f"{ours}.self_attn.out_proj.{kind}"] = state[f"{theirs}.attn.out_proj.{kind}"]
                result[f"{ours}.layer_norm1.{kind}"] = state[f"{theirs}.ln_1.{kind}"]
                result[f"{ours}.layer_norm2.{kind}"] = state[f"{theirs}.ln_2.{kind}"]
                result[f"{ours}.mlp.fc1.{kind}"] = state[f"{theirs}.mlp.c_fc.{kind}"]
                result[f"{ours}.mlp.fc2.{kind}"] = state[f"{theirs}.mlp.c_proj.{kind}"]
    return result
