"""Sliced models of all families to export: the built-in ones, and random ones of families that have none built in."""

import io
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import sentencepiece
import torch
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
    SiglipTokenizer,
    ViTImageProcessorPil,
)

from tests.slicing import enliven, random_keep
from upop_ray.data.checkpoints import resolve_checkpoint
from upop_ray.deploy.subject import Subject, open_subject
from upop_ray.models import MODELS
from upop_ray.models.spec import Source

_TEXTS = ["a red cat", "two dogs and a bird in the green garden", "sun"]
_TOWER = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}


def tiny_siglip(folder: Path) -> str:
    """A random SigLIP with a vocabulary of its own."""
    vocabulary = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS * 20), model_writer=vocabulary, vocab_size=40, hard_vocab_limit=False,
        unk_id=2, bos_id=-1, eos_id=1, pad_id=0, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(vocabulary.getvalue())
    tokenizer = SiglipTokenizer(vocab_file=str(folder / "spiece.model"), pad_token="</s>", model_max_length=10)
    text = {"vocab_size": 40, "max_position_embeddings": 10, "projection_size": 24, "bos_token_id": None}
    config = SiglipConfig(
        text_config=_TOWER | text | {"eos_token_id": 1, "pad_token_id": 1},
        vision_config=_TOWER | {"image_size": 16, "patch_size": 4},
    )
    save(SiglipModel(config), folder)
    image_processor = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    SiglipProcessor(image_processor, tokenizer).save_pretrained(folder)
    return "siglip"


def tiny_deit(folder: Path) -> str:
    """A random DeiT with a distillation token."""
    save(DeiTForImageClassification(DeiTConfig(**_TOWER, image_size=16, patch_size=4, num_labels=5)), folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return "vit"


def save(model: torch.nn.Module, folder: Path) -> None:
    enliven(model)
    model.save_pretrained(folder)  # type: ignore[operator]


_RANDOM: Mapping[str, Callable[[Path], str]] = {"siglip": tiny_siglip, "deit": tiny_deit}
_BUILTIN = ("clip", "vit", "segmenter", "blip_retrieval", "blip_caption", "blip_vqa", "blip_nlvr")
NAMES = (*_BUILTIN, *_RANDOM)
#: removed when the process ends
_FOLDERS: list[TemporaryDirectory[str]] = []


@cache
def subject(name: str) -> Subject:
    """A folder with about half of each site of a dense model, opened; not to be changed."""
    torch.manual_seed(0)
    _FOLDERS.append(TemporaryDirectory(prefix="upop-test-export-"))
    root = Path(_FOLDERS[-1].name)
    for part in ("dense", "sliced", "scratch"):
        (root / part).mkdir()
    family = _RANDOM[name](root / "dense") if name in _RANDOM else name
    source = Source(root / "dense" if name in _RANDOM else Path(resolve_checkpoint(f"builtin:{name}")))
    spec = MODELS[family]
    dense, processor = spec.load(source)
    sliced = spec.sliced(dense, dense.state_dict(), random_keep(spec.sites(dense), 0.5))
    sliced.save_pretrained(root / "sliced")
    processor.save_pretrained(root / "sliced")
    return open_subject(str(root / "sliced"), "results", root / "scratch")
