"""Fixtures that tests share; torch keeps to one thread, so that processes side by side do not fight for the cores."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from tests.golden_clip import arrays, golden_model
from tests.ranks import Ranks
from tests.s3 import s3 as s3
from tests.stores import behind_proxy as behind_proxy
from tests.stores import proxy as proxy
from tests.stores import store as store
from upop_ray.models.clip import SPEC
from upop_ray.pruning.site import Site

torch.set_num_threads(1)


@pytest.fixture
def clip() -> CLIPModel:
    """The golden tiny CLIP in fp32, new for each test."""
    return golden_model(torch.float32).eval()


@pytest.fixture(scope="session")
def sites() -> tuple[Site, ...]:
    """The sites of the golden tiny CLIP."""
    return SPEC.sites(golden_model(torch.float32))


@pytest.fixture(scope="session")
def examples() -> dict[str, torch.Tensor]:
    """Five images and seven captions, fp32, as keyword arguments of the golden CLIP."""
    inputs = arrays("clip_inputs")
    return {"pixel_values": inputs["eval_images"], "input_ids": inputs["eval_tokens"]}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden tiny CLIP as a transformers folder, with a tokenizer and an image processor; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    golden_model(torch.float32).save_pretrained(folder)
    words = [*"abcdefghij", *(f"{letter}</w>" for letter in "abcdefghij"), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    side = {"height": 32, "width": 32}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side)
    CLIPProcessor(image_processor, tokenizer).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "clip"
    return folder


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Ranks]:
    """Two processes in one gloo process group; started once, since that takes several seconds."""
    ranks = Ranks(2)
    yield ranks
    ranks.stop()
