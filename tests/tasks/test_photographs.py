"""Photographs of three shapes in one split through the batches, the loss and the evaluation of every task."""

import pickle
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from tests import tiny_segments
from tests.datasets import drawing, write_dataset
from tests.tasks import test_classification as classes
from tests.tasks.texts import SIDE, VOCABULARY, processor, tiny_model
from tests.tiny_segments import png
from upop_ray.config import parse
from upop_ray.data.order import Cursor
from upop_ray.data.pictures import HeldPictures
from upop_ray.data.reading import Reading
from upop_ray.models.blip.caption import BlipCaption
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.models.blip.twins import BlipNlvr
from upop_ray.models.blip.vqa import BlipVqa
from upop_ray.tasks import TASKS
from upop_ray.tasks.spec import Task

#: (width, height): portrait, landscape, smaller than the model's images
SHAPES = ((21, 50), (60, 24), (5, 4))
TEXTS = ("a red cat", "a big blue bird on grass", "is it a dog")
COUNTS = {"train": 6, "val": 5, "test": 3}
ANSWERS = ["yes", "no", "red", "blue"]
SETTINGS: Mapping[str, dict[str, Any]] = {
    "retrieval": {"loss": "momentum", "momentum": {"queue_size": 8}},
    "retrieval_itm": {"text_length": 8, "loss": "in_batch", "candidates": 2},
    "caption": {"text_length": 12, "max_length": 12, "metrics": ["exact", "f1"], "headline": "f1"},
    "vqa": {"question_length": 12, "answer_length": 6, "candidates": 2},
    "nlvr": {"text_length": 12},
    "classification": {},
    "segmentation": {"scales": [0.75, 1.5], "mirror": True},
}


def photograph(number: int) -> bytes:
    return drawing(number, *SHAPES[number % 3])


def class_map(number: int) -> bytes:
    width, height = SHAPES[number % 3]
    return png(np.random.default_rng(number).integers(0, 3, (height, width), dtype=np.uint8))


def row(task: str, number: int) -> dict[str, Any]:
    image, text = {"image": photograph(number), "image_id": str(number)}, TEXTS[number % 3]
    question = {"question_id": "0", "question": text, "answers": ANSWERS[:2], "weights": [0.75, 0.25]}
    rows = {
        "vqa": image | {"questions": [question] * (number % 3)},
        "nlvr": {"left": photograph(number), "right": photograph(number + 1), "statement": text, "label": number > 1},
        "classification": image | {"class": classes.CLASSES[number % 7]},
        "segmentation": image | {"segmentation": class_map(number)},
    }
    return rows.get(task, image | {"captions": [text, *TEXTS[: number % 2]]})


def write(task: str, folder: Path) -> Any:
    names = classes.CLASSES if task == "classification" else tiny_segments.CLASSES
    rows = {split: [row(task, number) for number in range(count)] for split, count in COUNTS.items()}
    return write_dataset(folder, rows, classes=names, answers=ANSWERS)


def tiny_clip() -> CLIPModel:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    vision = sizes | {"image_size": SIDE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=sizes | text, vision_config=vision, projection_dim=8))


def clip_processor() -> Any:
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(VOCABULARY)})
    return SimpleNamespace(tokenizer=tokenizer, image_processor=CLIPImageProcessorPil())


def tiny(task: str) -> tuple[Any, Any]:
    """A model and its processor."""
    blips = {"retrieval_itm": BlipRetrieval, "caption": BlipCaption, "vqa": BlipVqa, "nlvr": BlipNlvr}
    if task in blips:
        return tiny_model(blips[task]).float(), processor()
    if task == "retrieval":
        return tiny_clip(), clip_processor()
    if task == "classification":
        return classes.tiny_vit(), classes.tiny_processor()
    return tiny_segments.tiny_segmenter(), tiny_segments.tiny_processor()


def made(name: str, folder: Path, **reading: Any) -> tuple[Task, Any]:
    """A task with its model.

    :param reading: how its data is read
    """
    model, its_processor = tiny(name)
    # the default of every task is that of photographs
    experiment = parse({"batch_size": 4, "task": {"name": name, **SETTINGS[name]}})
    dataset = replace(write(name, folder), reading=Reading(**reading))
    return TASKS[name](experiment, dataset, its_processor, model), model.eval()


def tensors(value: Any) -> list[Tensor]:
    """Those of a batch."""
    if isinstance(value, Tensor):
        return [value]
    parts = [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else []
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("name", TASKS)
def test_training_takes_photographs_of_any_size(name: str, tmp_path: Path) -> None:
    task, model = made(name, tmp_path)
    task.start(model)
    batch = task.batch(Cursor(1, 0), 0, 1)
    images = 8 if name == "nlvr" else 4
    side = tiny_segments.SIDE if name == "segmentation" else SIDE
    assert batch.pixel_values.shape == (images, 3, side, side) and batch.pixel_values.isfinite().all()
    loss = task.loss(model, model, batch, Cursor(1, 0)).value
    loss.backward()
    assert torch.isfinite(loss) and model.get_parameter(next(iter(dict(model.named_parameters())))).grad is not None
    # the parts of two ranks are those of one
    parts = [task.batch(Cursor(1, 0), rank, 2).pixel_values for rank in range(2)]
    halves = [part.chunk(2) if name == "nlvr" else (part,) for part in parts]
    joined = torch.cat([half[side] for side in range(len(halves[0])) for half in halves])
    assert torch.equal(joined, batch.pixel_values)


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_takes_photographs_of_any_size(name: str, tmp_path: Path) -> None:
    task, model = made(name, tmp_path)
    found = task.evaluate(model, "validation")
    assert all(0 <= value <= 100 for value in found.values()) and task.headline in found
    assert task.evaluate(model, "validation") == found


@pytest.mark.parametrize("name", ["retrieval", "retrieval_itm", "nlvr"])
def test_texts_of_photographs_are_read_as_published(name: str, tmp_path: Path) -> None:
    task, _ = made(name, tmp_path)
    # BLIP's pre_caption drops these marks and what space they leave
    assert torch.equal(task.batches.tokenize([' A "red" cat: (2)! '])[0], task.batches.tokenize(["a red cat 2"])[0])


@pytest.mark.parametrize("name", TASKS)
def test_batches_can_be_made_in_another_process(name: str, tmp_path: Path) -> None:
    """They travel as files, texts and settings, and give the same there."""
    task, _ = made(name, tmp_path)
    copy = pickle.loads(pickle.dumps(task))
    one, other = (tensors(each.batch(Cursor(0, 0), 1, 2)) for each in (task, copy))
    assert one and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_every_caption_and_question_is_an_example(tmp_path: Path) -> None:
    expected = {"retrieval": 9, "retrieval_itm": 9, "caption": 9, "vqa": 6, "nlvr": 6, "classification": 6}
    for name, examples in expected.items():
        task, _ = made(name, tmp_path / name)
        assert len(task.batches.split) == examples  # type: ignore[attr-defined]
        assert task.steps_per_epoch() == examples // 4


@pytest.mark.parametrize("name", TASKS)
def test_streamed_images_give_what_held_ones_give(name: str, tmp_path: Path) -> None:
    (held, model), (streamed, _) = made(name, tmp_path), made(name, tmp_path, memory_bytes=0)
    assert not isinstance(streamed.batches.split.pictures, HeldPictures)  # type: ignore[attr-defined]
    one, other = (tensors(task.batch(Cursor(1, 0), 1, 2)) for task in (held, streamed))
    assert one and all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert streamed.evaluate(model, "test") == held.evaluate(model, "test")
