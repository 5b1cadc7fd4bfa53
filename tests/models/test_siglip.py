"""The sliced SigLIP: exactly the masked one, a transformers model like any other, and a point of it from end to end."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import (
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
    SiglipTokenizer,
)

from tests.slicing import assert_drops_by_unit_costs, assert_sliced_equals_masked, difference, enliven, random_keep
from tests.tiny import tiny_experiment
from upop_ray.data.checkpoints import BUILTIN_CHECKPOINTS
from upop_ray.data.image_text import FixedLength
from upop_ray.errors import CheckpointError
from upop_ray.models.siglip import SPEC, SlicedSiglipModel, load_siglip
from upop_ray.models.spec import Source
from upop_ray.pruning.compress import largest_difference
from upop_ray.pruning.cost import count_parameters
from upop_ray.pruning.site import kept_counts
from upop_ray.store import PointPaths, Store
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.engine import LocalEngine
from upop_ray.training.point import Point
from upop_ray.training.prepared import prepare
from upop_ray.training.progress import Host

TEXTS = ["a red cat", "two dogs and a bird in the green garden", "sun"]


def tiny_config(vocabulary: int = 40, length: int = 10, image_size: int = 16, patch_size: int = 4) -> SiglipConfig:
    tower = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {"vocab_size": vocabulary, "max_position_embeddings": length, "projection_size": 24}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    return SiglipConfig(
        text_config=tower | text | ids, vision_config=tower | {"image_size": image_size, "patch_size": patch_size}
    )


@pytest.fixture
def model() -> SiglipModel:
    torch.manual_seed(0)
    model = SiglipModel(tiny_config()).eval()
    enliven(model)
    return model


@pytest.fixture
def folder(model: SiglipModel, tmp_path: Path) -> Path:
    """The model with a SentencePiece vocabulary and an image processor, as the published checkpoints have them."""
    vocabulary = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=vocabulary,
        vocab_size=40,
        hard_vocab_limit=False,
        unk_id=2,
        bos_id=-1,
        eos_id=1,
        pad_id=0,
        minloglevel=2,
    )
    (tmp_path / "spiece.model").write_bytes(vocabulary.getvalue())
    tokenizer = SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=10)
    SiglipProcessor(SiglipImageProcessorPil(size={"height": 16, "width": 16}), tokenizer).save_pretrained(
        tmp_path / "dense"
    )
    model.save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_sliced_equals_masked(model: SiglipModel, share: float, attention: str) -> None:
    model.set_attn_implementation(attention)
    assert_sliced_equals_masked(SPEC, model, share)


def test_the_mlp_of_the_pooling_head_is_a_site_and_its_attention_stays(model: SiglipModel) -> None:
    sites = {site.name: site for site in SPEC.sites(model)}
    assert len(sites) == 2 * 2 * 2 + 1
    keep = random_keep(tuple(sites.values()), 1.0) | {"vision.head.mlp": torch.arange(40) < 7}
    sliced = SPEC.sliced(model, model.state_dict(), keep)
    assert sliced.vision_model.head.mlp.fc1.weight.shape == (7, 24)
    assert torch.equal(
        sliced.vision_model.head.attention.in_proj_weight, model.vision_model.head.attention.in_proj_weight
    )
    assert count_parameters(model) - count_parameters(sliced) == 33 * (24 + 1 + 24)


def test_a_slice_is_smaller_by_exactly_the_unit_costs(model: SiglipModel) -> None:
    assert_drops_by_unit_costs(SPEC, model)


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForZeroShotImageClassification])
def test_a_saved_slice_loads_through_the_auto_classes(model: SiglipModel, auto: type, tmp_path: Path) -> None:
    keep = random_keep(SPEC.sites(model), 0.4)
    sliced = SPEC.sliced(model, model.state_dict(), keep)
    sliced.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["kept_units"] == kept_counts(keep)
    loaded = auto.from_pretrained(tmp_path).eval()
    assert type(loaded) is SlicedSiglipModel
    assert difference(SPEC, sliced, loaded, SPEC.example(model)) == 0


def test_a_folder_loads_dense_and_sliced(model: SiglipModel, folder: Path, tmp_path: Path) -> None:
    dense, processor = load_siglip(Source(folder))
    assert dense.dtype == torch.float32 and not dense.training
    assert difference(SPEC, model, dense, SPEC.example(model)) == 0
    SPEC.sliced(model, model.state_dict(), random_keep(SPEC.sites(model), 0.4)).save_pretrained(tmp_path / "sliced")
    processor.save_pretrained(tmp_path / "sliced")
    again, its_processor = load_siglip(Source(tmp_path / "sliced"))
    assert isinstance(again, SlicedSiglipModel)
    assert its_processor.tokenizer(TEXTS)["input_ids"] == processor.tokenizer(TEXTS)["input_ids"]


def test_texts_are_encoded_as_by_the_models_own_processor(model: SiglipModel, folder: Path) -> None:
    """It is trained on padded texts without a mask and reads them off the last token."""
    loaded, processor = load_siglip(Source(folder))
    ids, mask = FixedLength(processor.tokenizer, length=10)(TEXTS)
    padded = {"padding": "max_length", "truncation": True, "max_length": 10, "return_tensors": "pt"}
    own = AutoProcessor.from_pretrained(folder)(text=TEXTS, **padded)
    assert torch.equal(ids, own["input_ids"])
    assert bool((ids[2] == processor.tokenizer.pad_token_id).any())
    with torch.no_grad():
        # without a mask, as in training
        expected = model.get_text_features(input_ids=own["input_ids"]).pooler_output
        found = loaded.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    assert largest_difference((found,), (expected,)) < 1e-5


def test_another_image_size_computes_what_transformers_interpolates_to(model: SiglipModel, folder: Path) -> None:
    larger, _ = load_siglip(Source(folder, image_size=24))
    example = SPEC.example(larger)
    assert example["pixel_values"].shape == (1, 3, 24, 24)
    with torch.no_grad():
        expected = model(**example, interpolate_pos_encoding=True)
    found = (expected.image_embeds, expected.text_embeds, expected.logits_per_image)
    assert largest_difference(SPEC.outputs(larger, example), found) < 1e-5


def test_a_folder_without_a_vocabulary_is_an_error(model: SiglipModel, folder: Path) -> None:
    (folder / "spiece.model").unlink()
    with pytest.raises(CheckpointError, match=r"^model\.path: ") as caught:
        load_siglip(Source(folder))
    assert "\n" not in str(caught.value)


def test_a_point_runs_from_search_to_export(tmp_path: Path) -> None:
    dense = json.loads((BUILTIN_CHECKPOINTS["builtin:clip"] / "config.json").read_text())
    text, vision = dense["text_config"], dense["vision_config"]
    config = tiny_config(text["vocab_size"], text["max_position_embeddings"], vision["image_size"], patch_size=32)
    torch.manual_seed(0)
    SiglipModel(config).save_pretrained(tmp_path / "siglip")
    source = {"family": "siglip", "path": str(tmp_path / "siglip"), "processor": "builtin:clip"}
    task = {"loss": "momentum", "momentum": {"queue_size": 16}}
    experiment = tiny_experiment(tmp_path, model=source, task=task, search={"ratio": 0.5})
    store, prepared = Store(experiment.store), prepare(experiment)
    attempt = Attempt.begin(store, PointPaths(prepared.hash))
    manifest = list(Point(prepared, Host(store, LocalEngine, attempt, torch.device("cpu"))).run())[-1].manifest
    assert manifest is not None
    assert manifest["checks"]["masked_vs_sliced"] <= 1e-5
    assert manifest["budget"]["achieved"] == pytest.approx(0.5, abs=0.005)
    model = AutoModel.from_pretrained(store.path(PointPaths(manifest["hash"]).model))
    assert count_parameters(model) == manifest["parameters"] < manifest["dense"]["parameters"]
    assert prepared.task().evaluate(model, "validation") == manifest["metrics"]["validation"]
