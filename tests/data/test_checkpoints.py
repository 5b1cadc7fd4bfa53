import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from upop_ray import config
from upop_ray.config import BUILTIN_EXPERIMENT, Experiment
from upop_ray.data.checkpoints import BUILTIN_CHECKPOINTS, resolve_checkpoint, verify_checkpoint
from upop_ray.data.shards import open_dataset
from upop_ray.errors import CheckpointError
from upop_ray.training.prepared import prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN_CHECKPOINTS["builtin:clip"], tmp_path / "clip"))


#: name -> headline metric, and what a model that looks at nothing reaches (see the modules that derive the data)
CHANCE = {
    "clip": ("r_mean", 1),
    "blip_retrieval": ("r_mean", 1),
    "blip_caption": ("exact", 1),
    # the most frequent answer of each kind of question
    "blip_vqa": ("accuracy", 28),
    "blip_nlvr": ("accuracy", 50),
    "vit": ("acc1", 5),
    # background everywhere
    "segmenter": ("mean_iou", 15),
}


def builtin_experiment(name: str) -> Experiment:
    """The built-in experiment, with the evaluation that the checkpoint's record was made with."""
    experiment = config.load(BUILTIN_EXPERIMENT.with_name(f"builtin_{name}.yaml"))
    record = verify_checkpoint(BUILTIN_CHECKPOINTS[f"builtin:{name}"])
    return config.replaced(experiment, {"task": record["experiment"]["task"]})


@pytest.mark.parametrize("name", CHANCE)
def test_a_shipped_checkpoint_holds_together_and_belongs_to_its_data(name: str) -> None:
    resolve_checkpoint(f"builtin:{name}")
    record = verify_checkpoint(BUILTIN_CHECKPOINTS[f"builtin:{name}"])
    headline, chance = CHANCE[name]
    assert record["data_content_hash"] == open_dataset(builtin_experiment(name).data.path).content_hash
    assert record["parameters"] <= 2.5e6
    assert record["validation"][headline] > 1.3 * chance and record["test"][headline] > 1.3 * chance


QUICK = ("clip", "vit", "segmenter")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CHANCE]
)
def test_a_shipped_checkpoint_has_the_metric_it_says(name: str) -> None:
    prepared = prepare(builtin_experiment(name))
    headline = CHANCE[name][0]
    found = prepared.task().evaluate(prepared.model, "validation")[headline]
    assert found == pytest.approx(
        verify_checkpoint(BUILTIN_CHECKPOINTS[f"builtin:{name}"])["validation"][headline], abs=0.3
    )


def test_everything_that_is_shipped_is_small() -> None:
    root = Path(__file__).parents[2]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    sizes = [(root / name.decode()).stat().st_size for name in tracked.split(b"\0") if name]
    assert sum(sizes) <= 40e6 and max(sizes) < 4e6


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
