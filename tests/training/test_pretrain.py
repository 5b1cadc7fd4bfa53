"""The training of the dense model, at tiny size."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from torch import nn

from upop_ray import config
from upop_ray.config import BUILTIN_EXPERIMENT
from upop_ray.data import once
from upop_ray.data.checkpoints import verify_checkpoint
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.training import pretrain
from upop_ray.training.dense import DENSE
from upop_ray.training.dense.clip import VOCABULARY, train_tokenizer


@pytest.fixture(scope="module")
def split() -> pa.Table:
    return open_dataset("builtin:emoji").split("val")


def test_the_tokenizer_knows_every_text_and_ends_it_once(split: pa.Table) -> None:
    tokenizer = train_tokenizer(split)
    assert len(tokenizer) == VOCABULARY
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


@pytest.mark.parametrize("name", DENSE)
def test_every_parameter_has_one_optimizer(name: str) -> None:
    experiment = config.load(BUILTIN_EXPERIMENT.with_name(f"builtin_{name}.yaml"))
    model, _ = DENSE[name](open_dataset(experiment.data.path))
    groups = [group for each in pretrain.optimizers(model, pretrain.Recipe()) for group in each.param_groups]
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    linear = {module for layer in blocks(model) for module in layer.modules() if isinstance(module, nn.Linear)}
    assert len(groups[0]["params"]) == sum(module.weight.requires_grad for module in linear)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The members of all lists and sequences of layers."""
    return [
        layer for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential) for layer in module
    ]


def test_pretraining_writes_a_checkpoint_that_holds_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ShardedDataset.split

    def few(self: ShardedDataset, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        return whole(self, name, columns).slice(0, 48)

    monkeypatch.setattr(ShardedDataset, "split", few)
    # neither whole splits that other tests have read, nor these to others
    monkeypatch.setattr(once, "_READ", {})
    experiment = config.load(BUILTIN_EXPERIMENT, [f"batch_size={16}"])
    record = pretrain.pretrain("clip", pretrain.Recipe(epochs=2), tmp_path / "clip", experiment)
    assert verify_checkpoint(tmp_path / "clip") == record
    assert record["recipe"]["epochs"] == 2 and 0 < record["test"]["r_mean"] < 100
    assert json.loads((tmp_path / "clip" / "config.json").read_text())["dtype"] == "float32"
