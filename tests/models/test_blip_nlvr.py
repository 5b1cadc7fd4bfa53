"""BLIP-NLVR2: what its layers compute, its slices, and the checkpoints it starts from."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, BlipForQuestionAnswering, BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextAttention

from tests.models.blip_models import images, save_processor, texts, tiny_config
from tests.slicing import (
    TOLERANCE,
    assert_drops_by_unit_costs,
    assert_sliced_equals_masked,
    difference,
    enliven,
    masked,
    random_keep,
)
from upop_ray.errors import CheckpointError
from upop_ray.models.blip.nlvr import SPEC, SlicedBlipNlvr, nlvr_of_blip
from upop_ray.models.blip.twins import BlipNlvr, TwinCrossAttention
from upop_ray.models.spec import Source
from upop_ray.pruning.site import kept_counts

EXACT = 1e-12


@pytest.fixture
def model() -> BlipNlvr:
    """A tiny one whose first text layer averages and whose second merges; its towers are 24 and 32 wide."""
    model = BlipNlvr(tiny_config()).eval()
    enliven(model)
    return model


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three texts of different lengths with two images each."""
    ids, mask = texts((7, 4, 5))
    return {"pixel_values": images(6), "input_ids": ids, "attention_mask": mask}


def plain(folder: Path) -> BlipForQuestionAnswering:
    """A BLIP that was not trained on pairs of images, saved as a transformers folder with its processor."""
    model = BlipForQuestionAnswering(tiny_config())
    enliven(model)
    model.save_pretrained(folder)
    save_processor(folder)
    return model


@torch.no_grad()
def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return SPEC.outputs(model, batch)[0]


# ---- what it computes


def attend(state: dict[str, Tensor], twin: int, text: Tensor, image: Tensor, heads: int) -> Tensor:
    """Cross attention with its output projection, head by head."""

    def projected(part: str, tokens: Tensor) -> Tensor:
        return tokens @ state[f"self{twin}.{part}.weight"].t() + state[f"self{twin}.{part}.bias"]

    query, key, value = projected("query", text), projected("key", image), projected("value", image)
    contexts = []
    for rows in torch.arange(query.shape[-1]).chunk(heads):
        scores = query[..., rows] @ key[..., rows].transpose(1, 2) / len(rows) ** 0.5
        contexts.append(scores.softmax(-1) @ value[..., rows])
    return torch.cat(contexts, -1) @ state[f"output.dense{twin}.weight"].t() + state[f"output.dense{twin}.bias"]


def defined(state: dict[str, Tensor], text: Tensor, image0: Tensor, image1: Tensor) -> Tensor:
    """The doubled cross attention as ALGORITHM, section 5, defines it, with two heads."""
    seen0, seen1 = (attend(state, twin, text, image, heads=2) for twin, image in enumerate((image0, image1)))
    if "output.merge_layer.weight" in state:
        joined = torch.cat([seen0, seen1], -1) @ state["output.merge_layer.weight"].t()
        joined = joined + state["output.merge_layer.bias"]
    else:
        joined = (seen0 + seen1) / 2
    total = text + joined
    spread = total.var(-1, unbiased=False, keepdim=True) + 1e-12
    normal = (total - total.mean(-1, keepdim=True)) / spread.sqrt()
    return normal * state["output.LayerNorm.weight"] + state["output.LayerNorm.bias"]


@torch.no_grad()
@pytest.mark.parametrize(("layer", "merges"), [(0, False), (1, False), (2, True), (3, True)])
def test_the_first_half_of_the_layers_averages_and_the_second_merges(layer: int, merges: bool) -> None:
    config = BlipTextConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=4, encoder_hidden_size=6)
    twins = TwinCrossAttention(config, layer).double().eval()
    enliven(twins)
    state = twins.state_dict()
    assert ("output.merge_layer.weight" in state) == merges
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    first, second = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    straight, _ = twins(text, torch.cat([first, second]))
    swapped, _ = twins(text, torch.cat([second, first]))
    assert (straight - defined(state, text, first, second)).abs().max() < EXACT
    assert (swapped - defined(state, text, second, first)).abs().max() < EXACT
    assert (straight - swapped).abs().max() > 0.01


def other_twin(name: str) -> str:
    parts = {"self0": "self1", "self1": "self0", "dense0": "dense1", "dense1": "dense0"}
    return ".".join(parts.get(part, part) for part in name.split("."))


@torch.no_grad()
def test_swapping_images_is_swapping_the_weights_of_the_twins(model: BlipNlvr, batch: dict[str, Tensor]) -> None:
    first, second = batch["pixel_values"].chunk(2)
    swapped = logits(model, batch | {"pixel_values": torch.cat([second, first])})
    assert (swapped - logits(model, batch)).abs().max() > 100 * TOLERANCE
    state = {other_twin(name): value.clone() for name, value in model.state_dict().items()}
    for name in [name for name in state if name.endswith("merge_layer.weight")]:
        state[name] = torch.cat(state[name].chunk(2, dim=1)[::-1], dim=1)
    model.load_state_dict(state)
    torch.testing.assert_close(logits(model, batch), swapped)


def test_each_text_is_about_its_own_two_images(model: BlipNlvr, batch: dict[str, Tensor]) -> None:
    together = logits(model, batch)
    for row in range(3):
        own = {name: batch[name][row : row + 1] for name in ("input_ids", "attention_mask")}
        alone = logits(model, own | {"pixel_values": batch["pixel_values"][[row, 3 + row]]})
        torch.testing.assert_close(alone[0], together[row])


def test_padding_changes_nothing(model: BlipNlvr, batch: dict[str, Tensor]) -> None:
    padding = batch["attention_mask"] == 0
    other = batch | {"input_ids": batch["input_ids"].masked_fill(padding, 5)}
    unmasked = {name: value for name, value in batch.items() if name != "attention_mask"}
    sliced = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.5))
    for each in (model, sliced):
        torch.testing.assert_close(logits(each, other), logits(each, batch))
        short = {"pixel_values": batch["pixel_values"][[1, 4]], "input_ids": batch["input_ids"][1:2, :4]}
        torch.testing.assert_close(logits(each, short)[0], logits(each, batch)[1])
        assert (logits(each, unmasked) - logits(each, batch)).abs().max() > 100 * TOLERANCE


def test_two_images_for_each_text_or_an_error(model: BlipNlvr, batch: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="4 images and 3 texts"):
        model(**batch | {"pixel_values": batch["pixel_values"][:4]})


# ---- its slices


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_sliced_equals_masked(model: BlipNlvr, batch: dict[str, Tensor], share: float, attention: str) -> None:
    model.set_attn_implementation(attention)
    assert_sliced_equals_masked(SPEC, model, share)
    keep = random_keep(SPEC.sites(model), share)
    sliced = SPEC.sliced(model, model.state_dict(), keep)
    assert difference(SPEC, masked(SPEC, model, keep), sliced, batch) < TOLERANCE
    assert share > 0 or set(kept_counts(keep).values()) == {1}


def test_the_two_cross_attentions_of_a_layer_are_sites_of_their_own(model: BlipNlvr) -> None:
    towers = {site.name: (site.kind, site.tower, site.units) for site in SPEC.sites(model)}
    assert towers == {
        **{f"vision.{i}.attn": ("attention", "vision", 8) for i in range(2)},
        **{f"vision.{i}.mlp": ("mlp", "vision", 40) for i in range(2)},
        **{f"text.{i}.attn": ("attention", "language", 16) for i in range(2)},
        **{f"text.{i}.mlp": ("mlp", "language", 48) for i in range(2)},
        **{f"text.{i}.cross{twin}": ("attention", "cross", 16) for i in range(2) for twin in range(2)},
    }


def test_a_sliced_model_can_be_sliced_again(model: BlipNlvr, batch: dict[str, Tensor]) -> None:
    first = random_keep(SPEC.sites(model), 0.6)
    once = SPEC.sliced(model, model.state_dict(), first)
    second = random_keep(SPEC.sites(once), 0.5, seed=1)
    twice = SPEC.sliced(once, once.state_dict(), second)
    joint = {name: mask.clone() for name, mask in first.items()}
    for name, mask in first.items():
        joint[name][mask] = second[name]
    assert difference(SPEC, masked(SPEC, model, joint), twice, batch) < TOLERANCE
    assert twice.config.kept_units == kept_counts(joint)


def test_parameters_and_macs_drop_by_the_unit_costs(model: BlipNlvr) -> None:
    assert_drops_by_unit_costs(SPEC, model)


# ---- its checkpoints


def test_dense_and_sliced_models_load_through_the_auto_classes(
    model: BlipNlvr, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    sliced = SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.4))
    for number, (saved, target) in enumerate(((model, BlipNlvr), (sliced, SlicedBlipNlvr))):
        folder = tmp_path / str(number)
        saved.save_pretrained(folder)
        save_processor(folder)
        automatic = AutoModel.from_pretrained(folder).eval()
        loaded, processor = SPEC.load(Source(folder))
        for each in (automatic, loaded):
            assert type(each) is target
            assert torch.equal(logits(each, batch), logits(saved, batch))
        assert not loaded.training and processor.tokenizer(["a b"])["input_ids"]


def test_a_plain_blip_gives_both_images_its_cross_attention(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = plain(tmp_path).state_dict()
    with caplog.at_level(logging.WARNING):
        model, _ = SPEC.load(Source(tmp_path))
    assert len(caplog.records) == 1
    new = {name for name in model.state_dict() if "merge_layer" in name or name.startswith("classifier.")}
    assert f"{len(new)} new weights start at random" in caplog.text and str(tmp_path) in caplog.text
    for name, value in model.state_dict().items():
        single = name.replace(".self0.", ".self.").replace(".self1.", ".self.")
        single = single.replace(".dense0.", ".dense.").replace(".dense1.", ".dense.")
        assert name in new or torch.equal(value, state[single]), name


def test_the_new_weights_of_a_plain_blip_are_the_same_each_time(tmp_path: Path) -> None:
    plain(tmp_path)
    torch.manual_seed(1)
    first, _ = SPEC.load(Source(tmp_path))
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    second, _ = SPEC.load(Source(tmp_path))
    assert torch.equal(torch.rand(1), expected)
    assert first.classifier[0].weight.std() > 0
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("parts", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_a_plain_blip_may_lie_in_a_pickle_or_in_parts(tmp_path: Path, parts: str) -> None:
    expected = plain(tmp_path / "whole").state_dict()
    state = SPEC.load(Source(tmp_path / "whole"))[0].state_dict()
    shutil.copytree(tmp_path / "whole", tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").unlink()
    if parts == "pytorch_model.bin":
        torch.save(expected, tmp_path / "other" / parts)
    else:
        BlipForQuestionAnswering.from_pretrained(tmp_path / "whole").save_pretrained(
            tmp_path / "other", max_shard_size="50KB"
        )
    assert (tmp_path / "other" / parts).is_file() and not (tmp_path / "other" / "model.safetensors").exists()
    found = SPEC.load(Source(tmp_path / "other"))[0].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in state.items())


def test_a_plain_blip_whose_weights_are_not_there_is_an_error(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "flax_model.msgpack")
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors or .* but \['flax_model\.msgpack'\]"):
        SPEC.load(Source(tmp_path))


@torch.no_grad()
def test_an_averaging_layer_of_a_plain_blip_sees_in_two_equal_images_what_that_saw_in_one(tmp_path: Path) -> None:
    single = plain(tmp_path).eval().text_encoder.encoder.layer[0].crossattention
    twins = SPEC.load(Source(tmp_path))[0].text_encoder.encoder.layer[0].crossattention
    assert isinstance(single, BlipTextAttention) and isinstance(twins, TwinCrossAttention)
    text, image = torch.randn(3, 5, 32), torch.randn(3, 4, 24)
    expected, _ = single(text, encoder_hidden_states=image)
    torch.testing.assert_close(twins(text, torch.cat([image, image]))[0], expected)


def test_a_plain_blip_that_lacks_more_is_an_error(tmp_path: Path) -> None:
    state = plain(tmp_path).state_dict()
    del state["text_encoder.encoder.layer.1.crossattention.self.key.bias"]
    with pytest.raises(CheckpointError, match=r"crossattention\.self0\.key\.bias"):
        nlvr_of_blip(tiny_config(), {n: v for n, v in state.items() if not n.startswith("text_decoder.")}, tmp_path)


def test_a_trained_model_that_lacks_its_classifier_is_an_error(model: BlipNlvr, tmp_path: Path) -> None:
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    with pytest.raises(CheckpointError, match=r"missing .*classifier\.0\.bias"):
        nlvr_of_blip(tiny_config(), state, tmp_path)


def test_positions_are_interpolated_to_another_image_size(model: BlipNlvr, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    save_processor(tmp_path)
    larger, _ = SPEC.load(Source(tmp_path, image_size=32))
    old, new = (each.vision_model.embeddings.position_embedding for each in (model, larger))
    expected = model.vision_model.embeddings.interpolate_pos_encoding(torch.zeros(1, 17, 24), 32, 32)
    assert old.shape == (1, 5, 24) and new.shape == (1, 17, 24)
    torch.testing.assert_close(new, expected)
    assert SPEC.example(larger)["pixel_values"].shape == (2, 3, 32, 32)
