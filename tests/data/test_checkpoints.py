import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from upop_ray.data.checkpoints import BUILTIN_CHECKPOINTS, resolve_checkpoint, verify_checkpoint
from upop_ray.data.shards import open_dataset
from upop_ray.errors import CheckpointError
from upop_ray.training import pretrain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN_CHECKPOINTS["builtin:clip"], tmp_path / "clip"))


def test_the_shipped_checkpoint_holds_together_and_belongs_to_the_shipped_data() -> None:
    record = verify_checkpoint(resolve_checkpoint("builtin:clip"))
    assert record["data_content_hash"] == open_dataset("builtin:emoji").content_hash
    assert record["parameters"] <= 2.5e6
    assert record["test"]["r_mean"] >= 45


def test_the_shipped_checkpoint_has_the_recall_it_says() -> None:
    folder = Path(resolve_checkpoint("builtin:clip"))
    found = pretrain.evaluate_saved(folder, open_dataset("builtin:emoji"), "val")
    assert found == pytest.approx(verify_checkpoint(folder)["validation"], abs=0.3)


def test_the_shipped_checkpoint_loads_plainly_and_in_any_precision(folder: Path) -> None:
    assert CLIPModel.from_pretrained(folder).dtype == torch.float32
    assert CLIPModel.from_pretrained(folder, dtype=torch.float16).dtype == torch.float16
    assert CLIPModel.from_pretrained(folder, dtype=torch.float32).logit_scale.shape == ()


def test_the_text_is_pooled_at_its_end_whatever_the_padding(folder: Path) -> None:
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    short = tokenizer(["cat face"], return_tensors="pt")
    long = tokenizer(["cat face"], return_tensors="pt", padding="max_length", max_length=16)
    with torch.inference_mode():
        pooled = [model.text_model(**inputs).pooler_output for inputs in (short, long)]
        last = model.text_model(**short).last_hidden_state[:, -1]
    assert short["input_ids"][0, -1] == model.config.text_config.eos_token_id
    torch.testing.assert_close(pooled[0], pooled[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled[0], last, atol=1e-5, rtol=0)


def test_another_tokenizer_is_refused_and_named(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"cat</w>"', '"tac</w>"'))
    with pytest.raises(CheckpointError, match=r"tokenizer.json: not the file that the checkpoint was trained with"):
        verify_checkpoint(folder)


def test_damaged_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model.safetensors: not the file"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("name", ["pretrain.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: missing"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 99, "sha256": {}}'])
def test_a_bad_record_is_named(folder: Path, content: str) -> None:
    (folder / "pretrain.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"pretrain.json: "):
        verify_checkpoint(folder)


def test_names_that_are_not_built_in_are_left_to_transformers() -> None:
    assert resolve_checkpoint("some/model") == "some/model"
    with pytest.raises(CheckpointError, match="builtin:blop: no such built-in checkpoint; there is builtin:clip"):
        resolve_checkpoint("builtin:blop")
