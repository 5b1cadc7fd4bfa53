"""Checkpoints in the original formats of CLIP and of vision transformers: written here, loaded, compared."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from tests.slicing import difference, enliven
from upop_ray.errors import CheckpointError
from upop_ray.models import clip, vit
from upop_ray.models.clip_names import clip_of_state
from upop_ray.models.spec import Source
from upop_ray.models.vit_names import vit_of_state

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


@pytest.fixture
def vit_processor(tmp_path: Path) -> Path:
    """A folder with an image processor alone."""
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "processor")
    return tmp_path / "processor"


def written(content: Any, tmp_path: Path) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


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


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_an_openai_clip_loads(clip_folder: Path, tmp_path: Path, wrapper: str | None) -> None:
    model = tiny_clip()
    state = openai_state(model)
    path = written(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path)
    loaded, processor = clip.load_clip(Source(path, processor=clip_folder))
    assert type(loaded) is CLIPModel and not loaded.training
    assert loaded.config.text_config.eos_token_id == 2 and loaded.config.vision_config.hidden_act == "quick_gelu"
    assert difference(clip.SPEC, model, loaded, clip.SPEC.example(model)) == 0
    assert processor.tokenizer(["abc"])["input_ids"]


def test_half_precision_facts_and_momentum_encoders_are_taken_care_of(clip_folder: Path, tmp_path: Path) -> None:
    model = tiny_clip().half().float()
    state = {name: value.half() for name, value in openai_state(model).items()}
    facts = {"input_resolution": torch.tensor(8), "context_length": torch.tensor(6), "vocab_size": torch.tensor(30)}
    path = written({"model": state | facts | of_training(state)}, tmp_path)
    loaded, _ = clip.load_clip(Source(path, processor=clip_folder))
    assert loaded.dtype == torch.float32
    assert difference(clip.SPEC, model, loaded, clip.SPEC.example(model)) == 0


def test_a_clip_file_takes_another_image_size(clip_folder: Path, tmp_path: Path) -> None:
    model = tiny_clip()
    path = written(openai_state(model), tmp_path)
    loaded, _ = clip.load_clip(Source(path, processor=clip_folder, image_size=12))
    example = clip.SPEC.example(loaded)
    assert example["pixel_values"].shape[-1] == 12
    with torch.no_grad():
        expected = model(**example, interpolate_pos_encoding=True).image_embeds
        found = loaded(**example).image_embeds
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("wrapper", [None, "model"])
def test_a_timm_classifier_loads(vit_processor: Path, tmp_path: Path, wrapper: str | None) -> None:
    model = tiny_vit()
    state = timm_state(model)
    path = written(state if wrapper is None else {wrapper: state}, tmp_path)
    loaded, processor = vit.load_vit(Source(path, processor=vit_processor))
    assert type(loaded) is ViTForImageClassification and not loaded.training
    assert difference(vit.SPEC, model, loaded, vit.SPEC.example(model)) == 0
    assert loaded.config.num_labels == 7 and processor.size["height"] == 8


def test_a_timm_classifier_without_bias_in_its_attention_loads(vit_processor: Path, tmp_path: Path) -> None:
    model = tiny_vit()
    state = timm_state(model)
    for layer in model.vit.layers:
        for projection in (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj):
            projection.bias.data.zero_()
    path = written({name: value for name, value in state.items() if "qkv.bias" not in name}, tmp_path)
    loaded, _ = vit.load_vit(Source(path, processor=vit_processor))
    assert difference(vit.SPEC, model, loaded, vit.SPEC.example(model)) == 0


Load = Callable[[Source], tuple[PreTrainedModel, Any]]


def clip_content() -> State:
    return openai_state(tiny_clip())


def vit_content() -> State:
    return timm_state(tiny_vit())


# loader, and the right content of a file
FORMATS = [(clip.load_clip, clip_content), (vit.load_vit, vit_content)]


def problem_of(load: Load, path: Path) -> str:
    """The one line that loading the file ends with."""
    with pytest.raises(CheckpointError) as caught:
        load(Source(path))
    message = str(caught.value)
    assert message.startswith("model.path: ") and str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize(("load", "content"), FORMATS)
def test_a_file_needs_the_name_of_a_processor(load: Load, content: Callable[[], State], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^model\.processor: weights\.pth holds weights alone; name a folder"):
        load(Source(written(content(), tmp_path)))


@pytest.mark.parametrize(
    ("load", "content", "gone", "named"),
    [
        (clip.load_clip, clip_content, "visual.proj", "visual.proj"),
        (clip.load_clip, clip_content, "transformer.resblocks.1.ln_2.bias", "layers.1.layer_norm2.bias"),
        (vit.load_vit, vit_content, "pos_embed", "pos_embed"),
        (vit.load_vit, vit_content, "blocks.1.norm2.bias", "vit.layers.1.layernorm_after.bias"),
    ],
)
def test_a_missing_entry_is_named(
    load: Load, content: Callable[[], State], gone: str, named: str, tmp_path: Path
) -> None:
    state = content()
    del state[gone]
    assert named in problem_of(load, written(state, tmp_path))


@pytest.mark.parametrize(("load", "content"), FORMATS)
def test_an_entry_too_many_is_named(load: Load, content: Callable[[], State], tmp_path: Path) -> None:
    path = written(content() | {"blocks.0.attn.alpha": torch.ones(64)}, tmp_path)
    assert "alpha" in problem_of(load, path)


@pytest.mark.parametrize(("load", "content"), FORMATS)
def test_a_shape_that_does_not_fit_is_named(load: Load, content: Callable[[], State], tmp_path: Path) -> None:
    state = content()
    name = next(name for name in state if name.endswith((".1.mlp.c_fc.weight", ".1.mlp.fc1.weight")))
    state[name] = state[name][:-1]
    assert "1.mlp.fc1.weight is (23, " in problem_of(load, written(state, tmp_path))


@pytest.mark.parametrize(("load", "content"), [(clip.load_clip, vit_content), (vit.load_vit, clip_content)])
def test_a_file_of_another_family_is_told_by_its_first_names(
    load: Load, content: Callable[[], State], tmp_path: Path
) -> None:
    state = content()
    message = problem_of(load, written(state, tmp_path))
    assert "it lacks" in message and next(iter(state)) in message


def test_heads_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(CheckpointError, match=r"is 64 wide, no multiple of the 48 of a head"):
        vit_of_state(timm_state(tiny_vit()), path, head_width=48)
    with pytest.raises(CheckpointError, match=r"is 128 wide, no multiple of the 48 of a head"):
        clip_of_state(openai_state(tiny_clip()), path, head_widths=(64, 48))


def test_a_distilled_deit_is_refused(tmp_path: Path) -> None:
    state = timm_state(tiny_vit()) | {"dist_token": torch.zeros(1, 1, 64)}
    assert "dist_token" in problem_of(vit.load_vit, written(state, tmp_path))


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(("load", "content"), FORMATS)
def test_code_in_a_file_is_not_run(load: Load, content: Callable[[], State], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = written({"model": content(), "args": Code(trace)}, tmp_path)
    torch.load(path, weights_only=False)
    assert trace.exists()
    trace.unlink()
    assert "give a file with its state_dict() alone" in problem_of(load, path)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:.*TorchScript:UserWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_refused_with_its_cure(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "ViT-B-32.pt")
    message = problem_of(clip.load_clip, tmp_path / "ViT-B-32.pt")
    assert "TorchScript" in message and "state_dict()" in message


@pytest.mark.parametrize("content", [torch.ones(2), [1, 2], {"epoch": 3}, {"model": {"a": 1}}])
def test_a_file_without_weights_by_name_is_an_error(content: Any, tmp_path: Path) -> None:
    assert "holds no weights by name" in problem_of(vit.load_vit, written(content, tmp_path))


def test_a_cut_off_file_is_an_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(timm_state(tiny_vit()), buffer)
    path = tmp_path / "weights.pth"
    path.write_bytes(buffer.getvalue()[:1000])
    problem_of(vit.load_vit, path)
