"""The sliced CLIP: exactly the masked one, and a transformers model like any other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, CLIPModel

from tests import slicing
from tests.slicing import TOLERANCE, random_keep
from upop_ray.errors import CheckpointError
from upop_ray.models.clip import SPEC, SlicedCLIPModel, load_clip
from upop_ray.models.spec import Source
from upop_ray.pruning.compress import largest_difference
from upop_ray.pruning.cost import count_parameters
from upop_ray.pruning.site import Keep, Site, kept_counts


def masked(model: CLIPModel, keep: Keep) -> nn.Module:
    return slicing.masked(SPEC, model, keep)


def difference(first: nn.Module, second: nn.Module, example: dict[str, Tensor]) -> float:
    return slicing.difference(SPEC, first, second, example)


def padded(examples: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same captions, with some tokens at their end taken as padding."""
    mask = torch.ones_like(examples["input_ids"])
    for row in range(len(mask)):
        mask[row, mask.shape[1] - row :] = 0
    return examples | {"attention_mask": mask}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_sliced_equals_masked(
    clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor], share: float
) -> None:
    keep = random_keep(sites, share)
    reference, sliced = masked(clip, keep), SPEC.sliced(clip, clip.state_dict(), keep)
    assert difference(reference, sliced, examples) < TOLERANCE
    assert difference(reference, sliced, padded(examples)) < TOLERANCE
    assert difference(reference, clip, examples) > 100 * TOLERANCE
    if share == 0.0:
        assert set(kept_counts(keep).values()) == {1}


def test_padding_is_not_looked_at(clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor]) -> None:
    sliced = SPEC.sliced(clip, clip.state_dict(), random_keep(sites, 0.5))
    one = {"pixel_values": examples["pixel_values"], "input_ids": examples["input_ids"][:1].clone()}
    end = int(one["input_ids"].argmax()) + 1
    one["input_ids"][:, end:] = 0
    one["attention_mask"] = (torch.arange(one["input_ids"].shape[1]) < end).long()[None]
    other = one | {"input_ids": one["input_ids"].clone()}
    other["input_ids"][:, end:] = 5
    with torch.no_grad():
        assert largest_difference(SPEC.outputs(sliced, one), SPEC.outputs(sliced, other)) < TOLERANCE


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_each_attention_implementation_keeps_the_dense_scale(
    clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor], attention: str
) -> None:
    keep = random_keep(sites, 0.25)
    reference, sliced = masked(clip, keep), SPEC.sliced(clip, clip.state_dict(), keep)
    for model in (reference, sliced):
        model.set_attn_implementation(attention)
    assert difference(reference, sliced, examples) < TOLERANCE


def test_a_slice_that_keeps_all_is_the_dense_model(
    clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor]
) -> None:
    sliced = SPEC.sliced(clip, clip.state_dict(), random_keep(sites, 1.0))
    assert difference(clip, sliced, examples) == 0
    assert count_parameters(sliced) == count_parameters(clip)


def test_a_sliced_model_can_be_sliced_again(
    clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor]
) -> None:
    first = random_keep(sites, 0.6)
    once = SPEC.sliced(clip, clip.state_dict(), first)
    inner = SPEC.sites(once)
    assert {site.name: site.units for site in inner} == kept_counts(first)
    second = random_keep(inner, 0.5, seed=1)
    twice = SPEC.sliced(once, once.state_dict(), second)
    # both masks in the units of the dense model
    joint = {name: mask.clone() for name, mask in first.items()}
    for name, mask in first.items():
        joint[name][mask] = second[name]
    assert difference(masked(clip, joint), twice, examples) < TOLERANCE
    assert kept_counts(joint) == twice.config.kept_units


_LOAD = """
import sys
import torch, transformers
import upop_ray
folder, weights = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(folder).eval()
assert type(model).__name__ == "SlicedCLIPModel"
zero_shot = transformers.AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
example = torch.load(weights + "/example.pt")
with torch.no_grad():
    outputs = [each(**example).logits_per_image for each in (model, zero_shot)]
torch.save(outputs, weights + "/logits.pt")
"""


def test_a_saved_slice_loads_through_the_auto_classes_of_another_process(
    clip: CLIPModel, sites: tuple[Site, ...], examples: dict[str, Tensor], tmp_path: Path
) -> None:
    keep = random_keep(sites, 0.4)
    sliced = SPEC.sliced(clip, clip.state_dict(), keep)
    sliced.save_pretrained(tmp_path / "model")
    torch.save(examples, tmp_path / "example.pt")
    subprocess.run([sys.executable, "-c", _LOAD, str(tmp_path / "model"), str(tmp_path)], check=True, timeout=120)
    with torch.no_grad():
        expected = SPEC.outputs(sliced, examples)[2]
    for logits in torch.load(tmp_path / "logits.pt"):
        torch.testing.assert_close(logits, expected)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["kept_units"] == kept_counts(keep)
    # the file holds what is kept and nothing more
    stored = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    assert sum(value.numel() for value in stored.values()) == count_parameters(sliced)


def test_load_gives_fp32_in_evaluation_mode_with_the_processor(clip: CLIPModel, clip_folder: Path) -> None:
    model, processor = load_clip(Source(clip_folder))
    assert not model.training and model.dtype == torch.float32
    assert all(torch.equal(value, clip.state_dict()[name]) for name, value in model.state_dict().items())
    assert processor.tokenizer(["abc"])["input_ids"] and processor.image_processor.crop_size["height"] == 32


def test_load_takes_an_exported_slice(
    clip: CLIPModel, clip_folder: Path, sites: tuple[Site, ...], examples: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "sliced"
    shutil.copytree(clip_folder, folder)
    sliced = SPEC.sliced(clip, clip.state_dict(), random_keep(sites, 0.4))
    sliced.save_pretrained(folder)
    model, _ = load_clip(Source(folder))
    assert isinstance(model, SlicedCLIPModel)
    assert difference(sliced, model, examples) < TOLERANCE


def broken_copy(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "broken"))


def assert_names_model_path(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_clip(Source(folder))
    message = str(caught.value)
    assert message.startswith("model.path: ") and str(folder) in message and "\n" not in message
    return message


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    assert_names_model_path(tmp_path / "nowhere")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert_names_model_path(tmp_path)


def test_a_folder_of_another_family_is_an_error(tmp_path: Path) -> None:
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=8, **size)).save_pretrained(tmp_path)
    message = assert_names_model_path(tmp_path)
    assert "'bert'" in message and "model.family needs 'clip'" in message


def test_a_config_that_is_no_json_is_an_error(clip_folder: Path, tmp_path: Path) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    (folder / "config.json").write_text("{")
    assert_names_model_path(folder)


def test_a_folder_without_weights_is_an_error(clip_folder: Path, tmp_path: Path) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    (folder / "model.safetensors").unlink()
    assert_names_model_path(folder)


@pytest.mark.parametrize("size", [0, 100, 10_000])
def test_cut_off_weights_are_an_error(clip_folder: Path, tmp_path: Path, size: int) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert_names_model_path(folder)


def test_weights_that_lack_a_tensor_are_an_error(clip_folder: Path, tmp_path: Path) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "visual_projection.weight" in assert_names_model_path(folder)


def test_weights_of_another_shape_are_an_error(clip_folder: Path, tmp_path: Path) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"][:-1].clone()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    cut, width = tensors["visual_projection.weight"].shape
    told = f"visual_projection.weight is ({cut}, {width}), expected ({cut + 1}, {width})"
    assert told in assert_names_model_path(folder)


@pytest.mark.parametrize(
    ("tower", "setting", "value", "said"),
    [
        ("vision_config", "image_size", "x", "'image_size' with value 'x'"),
        ("vision_config", "num_attention_heads", 0, "zero"),
        ("text_config", "num_attention_heads", 7, "not a multiple of the number of attention heads (7)"),
    ],
)
def test_a_config_with_an_impossible_value_is_an_error(
    clip_folder: Path, tmp_path: Path, tower: str, setting: str, value: object, said: str
) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config[tower][setting] = value
    (folder / "config.json").write_text(json.dumps(config))
    assert said in assert_names_model_path(folder)


def test_kept_units_of_unknown_sites_are_an_error(
    clip: CLIPModel, clip_folder: Path, sites: tuple[Site, ...], tmp_path: Path
) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    SPEC.sliced(clip, clip.state_dict(), random_keep(sites, 0.5)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["kept_units"]["vision.9.mlp"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"vision\.9\.mlp"):
        load_clip(Source(folder))


def test_a_folder_without_a_tokenizer_is_an_error(clip_folder: Path, tmp_path: Path) -> None:
    # transformers loads it without a word, with a tokenizer that knows none
    folder = broken_copy(clip_folder, tmp_path)
    for file in [*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("merges*")]:
        file.unlink()
    assert "tokenizer" in assert_names_model_path(folder)


def test_a_folder_without_an_image_processor_is_an_error(clip_folder: Path, tmp_path: Path) -> None:
    folder = broken_copy(clip_folder, tmp_path)
    for file in folder.glob("*processor_config.json"):
        file.unlink()
    assert_names_model_path(folder)


def test_the_example_is_the_same_each_time(clip: CLIPModel) -> None:
    torch.manual_seed(0)
    first = SPEC.example(clip)
    torch.manual_seed(1)
    second = SPEC.example(clip)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(first["input_ids"]) == len(first["pixel_values"]) == 1
