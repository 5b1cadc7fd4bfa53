"""Checkpoints in the original formats of CLIP and of vision transformers: written here, loaded, compared."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPModel, PreTrainedModel, ViTForImageClassification, ViTImageProcessorPil

from tests.models.original_names import State, of_training, openai_state, timm_state, tiny_clip, tiny_vit
from tests.slicing import difference
from upop_ray.errors import CheckpointError
from upop_ray.models import clip, vit
from upop_ray.models.clip_names import clip_of_state
from upop_ray.models.spec import Source
from upop_ray.models.vit_names import vit_of_state


@pytest.fixture
def vit_processor(tmp_path: Path) -> Path:
    """A folder with an image processor alone."""
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "processor")
    return tmp_path / "processor"


def written(content: Any, tmp_path: Path) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


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
    assert str(path) in problem_of(vit.load_vit, path)
