"""The training of the dense model, at tiny size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import CLIPModel

from upop_ray.data.checkpoints import verify_checkpoint
from upop_ray.data.image_text import ImageTextSplit, load_image_text
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.training import pretrain


@pytest.fixture(scope="module")
def split() -> ImageTextSplit:
    return load_image_text(open_dataset("builtin:emoji"), "val")


def test_the_tokenizer_knows_every_text_and_ends_it_once(split: ImageTextSplit) -> None:
    tokenizer = pretrain.train_tokenizer(split)
    assert len(tokenizer) == pretrain.VOCABULARY
    for text in ["cat face", "naïve ☃ 雪だるま", "\x00\x7f~"]:
        ids = tokenizer(text)["input_ids"]
        assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
        assert ids[0] == tokenizer.bos_token_id
    # the highest id, so that pooling by argmax finds it too
    assert tokenizer.eos_token_id == len(tokenizer) - 1


def test_the_rate_rises_and_falls() -> None:
    rates = [pretrain.rate(step, steps=100, warm_up=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.001


def test_every_parameter_has_one_optimizer(split: ImageTextSplit) -> None:
    model = CLIPModel(pretrain.dense_config(pretrain.train_tokenizer(split)))
    groups = [group for each in pretrain.optimizers(model, pretrain.Recipe()) for group in each.param_groups]
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    # 7 layers with 4 attention and 2 MLP matrices
    assert len(groups[0]["params"]) == 42


def test_pretraining_writes_a_checkpoint_that_holds_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ShardedDataset.split
    monkeypatch.setattr(ShardedDataset, "split", lambda self, name, columns: whole(self, name, columns).slice(0, 48))
    recipe = replace(pretrain.Recipe(), epochs=2, batch_size=16)
    record = pretrain.pretrain(recipe, tmp_path / "clip")
    assert verify_checkpoint(tmp_path / "clip") == record
    assert record["recipe"]["epochs"] == 2 and record["test"]["captions"] == 3 * record["test"]["images"] == 144
    assert json.loads((tmp_path / "clip" / "config.json").read_text())["dtype"] == "float32"
