"""Checkpoints in BLIP's original format give the models that they were written from."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig, PreTrainedModel

from tests.models.blip_models import save_processor
from tests.slicing import enliven
from upop_ray.errors import CheckpointError
from upop_ray.models import MODELS
from upop_ray.models.blip.caption import BlipCaption
from upop_ray.models.blip.names import BlipKind, blip_checkpoint
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.models.blip.twins import BlipNlvr
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.models.spec import Source

DENSE: dict[BlipKind, type[PreTrainedModel]] = {
    "retrieval": BlipRetrieval,
    "caption": BlipCaption,
    "vqa": BlipVqa,
    "nlvr": BlipNlvr,
}
#: our names -> the original ones, first match
ORIGINAL = (
    (r"vision_model\.embeddings\.class_embedding", "visual_encoder.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "visual_encoder.pos_embed"),
    (r"vision_model\.embeddings\.patch_embedding\.(.+)", r"visual_encoder.patch_embed.proj.\1"),
    (r"vision_model\.post_layernorm\.(.+)", r"visual_encoder.norm.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)\.(.+)", r"visual_encoder.blocks.\1.norm\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.+)", r"visual_encoder.blocks.\1.attn.qkv.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.(.+)", r"visual_encoder.blocks.\1.attn.proj.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.+)", r"visual_encoder.blocks.\1.mlp.\2"),
    (r"classifier\.(.+)", r"cls_head.\1"),
    (r"temperature", "temp"),
    (r"((?:text_|vision_proj|itm_head).+)", r"\1"),
)


#: what training keeps beside the model, and parts of other models, by name in files
BESIDE = (
    "visual_encoder_m.cls_token",
    "text_encoder_m.embeddings.word_embeddings.weight",
    "vision_proj_m.weight",
    "text_proj_m.bias",
    "image_queue",
    "text_queue",
    "idx_queue",
    "ptr_queue",
    "queue_ptr",
)


def original_name(name: str) -> str:
    return next(found.expand(theirs) for ours, theirs in ORIGINAL if (found := re.fullmatch(ours, name)))


def dense(kind: BlipKind) -> PreTrainedModel:
    """A model whose config is the published one in all that shapes do not show: heads, epsilons, dropout."""
    # the decoder of question answering looks at states of the question, so both towers are of one width
    width = 128 if kind == "vqa" else 64
    vision = {"hidden_size": width, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": width // 64}
    text = {"hidden_size": 128, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 2}
    text |= {"vocab_size": 110, "max_position_embeddings": 48, "bos_token_id": 108}
    config = BlipConfig(
        vision_config=vision | {"image_size": 24, "patch_size": 8, "layer_norm_eps": 1e-6},
        text_config=text | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        image_text_hidden_size=20 if kind == "retrieval" else 256,
    )
    model = DENSE[kind](config).eval()
    enliven(model)
    return model


def original_state(model: PreTrainedModel) -> dict[str, Tensor]:
    state = {original_name(name): value for name, value in model.state_dict().items()}
    part = "text_decoder.bert" if isinstance(model, BlipCaption) else "text_encoder"
    return state | {f"{part}.embeddings.position_ids": torch.arange(48)[None]}


def write(state: dict[str, Tensor], folder: Path) -> Source:
    path, processor = folder / "blip.pth", folder / "processor"
    torch.save({"model": state, "epoch": 3}, path)
    save_processor(processor)
    return Source(path, processor)


@pytest.mark.parametrize("kind", DENSE)
def test_an_original_file_gives_the_model_that_it_was_written_from(kind: BlipKind, tmp_path: Path) -> None:
    model, spec = dense(kind), MODELS[f"blip_{kind}"]
    loaded, processor = spec.load(write(original_state(model), tmp_path))
    assert type(loaded) is DENSE[kind] and not loaded.training
    assert processor.tokenizer(["a"])["input_ids"]
    for tower in ("vision_config", "text_config"):
        expected, found = (getattr(each.config, tower).to_dict() for each in (model, loaded))
        assert {name for name in expected if expected[name] != found[name]} <= {"dtype"}
    assert loaded.config.image_text_hidden_size == model.config.image_text_hidden_size
    example = spec.example(model)
    with torch.no_grad():
        for before, after in zip(spec.outputs(model, example), spec.outputs(loaded, example), strict=True):
            assert torch.equal(before, after)


def test_what_training_keeps_beside_the_model_is_left_out(tmp_path: Path) -> None:
    model = dense("retrieval")
    # pre-training has a decoder, too
    beside = (*BESIDE, "text_decoder.cls.predictions.bias")
    source = write(original_state(model) | dict.fromkeys(beside, torch.zeros(2)), tmp_path)
    _, state = blip_checkpoint(source.path, "retrieval")
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_nlvr_starts_from_an_original_file_of_another_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    retrieval = dense("retrieval")
    model, _ = MODELS["blip_nlvr"].load(write(original_state(retrieval), tmp_path))
    assert "new weights start at random" in caplog.text
    layer, single = (each.text_encoder.encoder.layer[2].crossattention for each in (model, retrieval))
    for twin in (layer.self0, layer.self1):
        assert all(torch.equal(value, single.self.state_dict()[name]) for name, value in twin.state_dict().items())
    for projection in (layer.output.dense0, layer.output.dense1):
        assert torch.equal(projection.weight, single.output.dense.weight)
    assert torch.equal(model.vision_model.post_layernorm.bias, retrieval.vision_model.post_layernorm.bias)


@pytest.mark.parametrize("kind", DENSE)
def test_names_that_do_not_fit_are_named(kind: BlipKind, tmp_path: Path) -> None:
    state = original_state(dense(kind))
    state["visual_encoder.blocks.1.mlp.fc3.bias"] = state.pop("visual_encoder.blocks.1.mlp.fc2.bias")
    with pytest.raises(CheckpointError) as caught:
        MODELS[f"blip_{kind}"].load(write(state, tmp_path))
    message = str(caught.value)
    assert message.startswith("model.path: ") and "\n" not in message
    assert "layers.1.mlp.fc2.bias" in message and "visual_encoder.blocks.1.mlp.fc3.bias" in message


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    state = original_state(dense("caption")) | {"prompt_encoder.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"unexpected \['prompt_encoder\.weight'\]"):
        MODELS["blip_caption"].load(write(state, tmp_path))


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("caption", "text_decoder.bert.embeddings.word_embeddings.weight"),
        ("retrieval", "text_encoder.embeddings.word_embeddings.weight"),
        ("vqa", "visual_encoder.pos_embed"),
        ("retrieval", "vision_proj.weight"),
    ],
)
def test_a_file_of_another_model_is_an_error(kind: BlipKind, missing: str, tmp_path: Path) -> None:
    state = original_state(dense(kind))
    del state[missing]
    source = write(state, tmp_path)
    with pytest.raises(CheckpointError, match=rf"^model\.path: .*lacks {re.escape(missing)}; [^\n]*$"):
        MODELS[f"blip_{kind}"].load(source)


def test_widths_that_are_no_multiple_of_a_head_are_an_error(tmp_path: Path) -> None:
    source = write(original_state(dense("caption")), tmp_path)
    with pytest.raises(CheckpointError, match=r"64 wide, no multiple of the 48"):
        blip_checkpoint(source.path, "caption", head_width=48)
    config, _ = blip_checkpoint(source.path, "caption", head_width=16)
    assert (config.vision_config.num_attention_heads, config.text_config.num_attention_heads) == (4, 8)
