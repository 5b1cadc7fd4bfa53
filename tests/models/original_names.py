"""Tiny models, and their weights as the original formats of CLIP and of vision transformers hold them."""

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification

from tests.slicing import enliven

State = dict[str, Tensor]


def tiny_clip() -> CLIPModel:
    """Heads are 64 wide as in the published files."""
    layer = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = {"hidden_size": 64, "image_size": 8, "patch_size": 4}
    text = {"hidden_size": 128, "vocab_size": 30, "max_position_embeddings": 6, "num_attention_heads": 2}
    text |= {"bos_token_id": 28, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(vision_config=layer | vision, text_config=layer | text, projection_dim=16)).eval()
    enliven(model)
    return model


def tiny_vit() -> ViTForImageClassification:
    size = {"hidden_size": 64, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 1}
    config = ViTConfig(**size, image_size=8, patch_size=4, num_labels=7, layer_norm_eps=1e-6)
    torch.manual_seed(0)
    model = ViTForImageClassification(config).eval()
    enliven(model)
    return model


def openai_state(model: CLIPModel) -> State:
    """The weights of a CLIP as OpenAI's model holds them."""
    vision, text = model.vision_model, model.text_model
    state = {
        "positional_embedding": text.embeddings.position_embedding.weight,
        "text_projection": model.text_projection.weight.t().contiguous(),
        "logit_scale": model.logit_scale,
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        "visual.proj": model.visual_projection.weight.t().contiguous(),
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        **prefixed("visual.ln_pre", vision.pre_layrnorm),
        **prefixed("visual.ln_post", vision.post_layernorm),
        **prefixed("ln_final", text.final_layer_norm),
    }
    for path, tower in (("visual.transformer", vision), ("transformer", text)):
        for index, layer in enumerate(tower.encoder.layers):
            inside = layer.self_attn
            block = f"{path}.resblocks.{index}"
            for kind, rows in fused(inside.q_proj, inside.k_proj, inside.v_proj).items():
                state[f"{block}.attn.in_proj_{kind}"] = rows
            state |= prefixed(f"{block}.attn.out_proj", inside.out_proj)
            state |= prefixed(f"{block}.ln_1", layer.layer_norm1) | prefixed(f"{block}.ln_2", layer.layer_norm2)
            state |= prefixed(f"{block}.mlp.c_fc", layer.mlp.fc1) | prefixed(f"{block}.mlp.c_proj", layer.mlp.fc2)
    return {name: value.detach().clone() for name, value in state.items()}


def timm_state(model: ViTForImageClassification) -> State:
    """The weights of a classifier as timm's model holds them."""
    embeddings = model.vit.embeddings
    state = {
        "cls_token": embeddings.cls_token,
        "pos_embed": embeddings.position_embeddings,
        **prefixed("patch_embed.proj", embeddings.patch_embeddings.projection),
        **prefixed("norm", model.vit.layernorm),
        **prefixed("head", model.classifier),
    }
    for index, layer in enumerate(model.vit.layers):
        inside, block = layer.attention, f"blocks.{index}"
        for kind, rows in fused(inside.q_proj, inside.k_proj, inside.v_proj).items():
            state[f"{block}.attn.qkv.{kind}"] = rows
        state |= prefixed(f"{block}.attn.proj", inside.o_proj)
        state |= prefixed(f"{block}.norm1", layer.layernorm_before) | prefixed(f"{block}.norm2", layer.layernorm_after)
        state |= prefixed(f"{block}.mlp.fc1", layer.mlp.fc1) | prefixed(f"{block}.mlp.fc2", layer.mlp.fc2)
    return {name: value.detach().clone() for name, value in state.items()}


def prefixed(path: str, module: nn.Module) -> State:
    return {f"{path}.{kind}": value for kind, value in module.state_dict().items()}


def fused(*projections: nn.Linear) -> State:
    return {kind: torch.cat([each.state_dict()[kind] for each in projections]) for kind in ("weight", "bias")}


def of_training(state: State) -> State:
    """What UPop's training checkpoints hold beside the online model."""
    towers = ("visual", "transformer", "token_embedding", "ln_final")
    twins = {
        name.replace(tower, f"{tower}_m", 1): torch.zeros_like(value)
        for name, value in state.items()
        for tower in towers
        if name.startswith(tower)
    }
    singles = {f"{name}_m": torch.zeros_like(state[name]) for name in ("positional_embedding", "text_projection")}
    queues = {"image_queue": torch.zeros(16, 4), "text_queue": torch.zeros(16, 4), "idx_queue": torch.zeros(1, 4)}
    return twins | singles | queues | {"ptr_queue": torch.zeros(1, dtype=torch.long)}
