"""Classification: loss and evaluation against references, two processes against one, and a whole point."""

import copy
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    CLIPImageProcessorPil,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from tests.datasets import drawing, write_dataset
from tests.ranks import Ranks
from tests.training.test_point import manifest_of
from upop_ray.config import Experiment, parse
from upop_ray.data.order import Cursor
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.errors import ConfigError
from upop_ray.pruning.cost import count_parameters
from upop_ray.store import PointPaths, Store
from upop_ray.tasks import TASKS
from upop_ray.tasks.classification import Classification, hits, labels_of
from upop_ray.tasks.collective import rank, world_size

SIDE = 16
CLASSES = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu"]
#: the model counts them the other way round
ID2LABEL = dict(enumerate(reversed(CLASSES)))
#: more than one batch of the evaluation, and an incomplete last one
SIZES = {"train": 16, "val": 150, "test": 5}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def write(folder: Path, width: int = SIDE, height: int = SIDE) -> ShardedDataset:
    rows = {
        split: [{"image": drawing(number % 29, width, height), "class": CLASSES[number % 7]} for number in range(count)]
        for split, count in SIZES.items()
    }
    return write_dataset(folder, rows, classes=CLASSES)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    return write(tmp_path_factory.mktemp("classes"))


def tiny_vit(id2label: dict[int, str] = ID2LABEL) -> ViTForImageClassification:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, image_size=SIDE, patch_size=8, id2label=id2label, hidden_dropout_prob=0.1)
    torch.manual_seed(0)
    return ViTForImageClassification(config).eval()


def tiny_processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


def experiment(**task: Any) -> Experiment:
    settings = {"name": "classification", "augmentation": "drawings"} | task
    return parse({"name": "tiny", "batch_size": 8, "task": settings})


def task_of(dataset: ShardedDataset, **settings: Any) -> Classification:
    return Classification(experiment(**settings), dataset, tiny_processor(), tiny_vit())


def test_the_task_is_registered() -> None:
    assert TASKS["classification"] is Classification


def test_loss_is_the_cross_entropy_of_soft_targets(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset), tiny_vit()
    batch = task.batch(Cursor(1, 1), 0, 1)
    loss = task.loss(model, model, batch, Cursor(1, 1))
    logits = model(pixel_values=batch.pixel_values).logits
    rows = zip(batch.targets, logits, strict=True)
    expected = torch.stack([-(target * row.log_softmax(0)).sum() for target, row in rows]).mean()
    torch.testing.assert_close(loss.value, expected, **CLOSE)
    assert torch.equal(loss.logits, logits) and torch.equal(task.logits(model, batch), logits)


def test_without_softening_it_is_the_loss_of_transformers(dataset: ShardedDataset) -> None:
    task, model = task_of(dataset, mixup=0.0, cutmix=0.0, label_smoothing=0.0), tiny_vit()
    batch = task.batch(Cursor(), 0, 1)
    expected = model(pixel_values=batch.pixel_values, labels=batch.targets.argmax(1)).loss
    torch.testing.assert_close(task.loss(model, model, batch, Cursor()).value, expected, **CLOSE)


@pytest.mark.parametrize("augmentation", ["drawings", "photographs"])
def test_the_mean_loss_of_the_ranks_is_that_of_the_global_batch(dataset: ShardedDataset, augmentation: str) -> None:
    task, model = task_of(dataset, augmentation=augmentation), tiny_vit()
    whole, *parts = (
        task.loss(model, model, task.batch(Cursor(), *place), Cursor()).value for place in ((0, 1), (0, 2), (1, 2))
    )
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole, **CLOSE)


def test_settings_reach_the_batches(dataset: ShardedDataset) -> None:
    plain = {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0, "rand_augment": "", "erasing": 0.0}
    # without mixing and smoothing targets are the classes under the model's numbers
    batch = task_of(dataset, **plain).batch(Cursor(), 0, 1)
    rows = task_of(dataset, **plain).batches.order.step(Cursor()).whole
    assert batch.targets.argmax(1).tolist() == [6 - row % 7 for row in rows]
    assert batch.targets.max(1).values.tolist() == [1.0] * 8
    pixels = [batch.pixel_values]
    for other in ({"rand_augment": "rand-m9-n4-p1-inc1"}, {"erasing": 1.0}, {"augmentation": "photographs"}):
        pixels.append(task_of(dataset, **plain | other).batch(Cursor(), 0, 1).pixel_values)
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(pixels, 2))
    smooth = task_of(dataset, **plain | {"label_smoothing": 0.7}).batch(Cursor(), 0, 1)
    torch.testing.assert_close(smooth.targets.max(1).values, torch.full((8,), 0.3 + 0.1))
    mixed = task_of(dataset, **plain | {"mixup": 0.8}).batch(Cursor(), 0, 1)
    assert ((mixed.targets > 0).sum(1) <= 2).all() and (mixed.targets.max(1).values < 1).any()
    assert task_of(dataset, repeats=3).batches.order.repeats == 3


@torch.no_grad()
@pytest.mark.parametrize("augmentation", ["drawings", "photographs"])
def test_evaluation_is_that_of_each_image_by_itself(tmp_path: Path, augmentation: str) -> None:
    """At the stored size drawings are seen as they are; photographs by the middle that transformers crops."""
    dataset = write(tmp_path) if augmentation == "drawings" else write(tmp_path, 40, 24)
    task, model = task_of(dataset, augmentation=augmentation), tiny_vit()
    first, best_five = 0, 0
    for number in range(SIZES["val"]):
        pixels = prepared(dataset.split("val")["image"][number].as_py(), augmentation)
        order = model(pixel_values=pixels).logits[0].argsort(descending=True).tolist()
        place = order.index(6 - number % 7)
        first, best_five = first + (place == 0), best_five + (place < 5)
    # dropout would blur it
    found = task.evaluate(model.train(), "validation")
    assert found == pytest.approx({"acc1": 100 * first / SIZES["val"], "acc5": 100 * best_five / SIZES["val"]})
    assert 0 < first < best_five < SIZES["val"]
    assert task.evaluate(model, "validation") == found


def prepared(image: bytes, augmentation: str) -> torch.Tensor:
    opened = Image.open(io.BytesIO(image))
    side, mean = {"height": SIDE, "width": SIDE}, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    # CLIP's resizes the shorter side, and crops the centre
    shorter = SIDE if augmentation == "drawings" else SIDE * 256 // 224
    processor = CLIPImageProcessorPil(size={"shortest_edge": shorter}, crop_size=side, **mean)
    return processor(opened, return_tensors="pt")["pixel_values"]


def on_a_rank(root: str) -> tuple[float, dict[str, float]]:
    task, model = task_of(open_dataset(root)), tiny_vit()
    loss = task.loss(model, model, task.batch(Cursor(), rank(), world_size()), Cursor()).value
    return loss.item(), task.evaluate(model, "validation")


def test_two_ranks_are_as_one(dataset: ShardedDataset, two_ranks: Ranks) -> None:
    loss, metrics = on_a_rank(dataset.root)
    (first, first_metrics), (second, second_metrics) = two_ranks.run(on_a_rank, dataset.root)
    assert (first + second) / 2 == pytest.approx(loss, rel=1e-5)
    assert first_metrics == second_metrics == metrics


def test_hits_of_a_hand_computed_case() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]])
    assert hits(logits, torch.tensor([0, 1, 0])).tolist() == [[1, 1], [0, 1], [0, 0]]
    # with fewer than five classes every label is among the best five
    assert hits(torch.tensor([[1.0, 2], [2, 1]]), torch.tensor([0, 0])).tolist() == [[0, 1], [1, 1]]


def test_classes_are_found_by_their_names() -> None:
    assert labels_of(CLASSES, ID2LABEL).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert labels_of(CLASSES, {number: f"LABEL_{number}" for number in range(7)}).tolist() == list(range(7))
    # data may call its classes as transformers calls nameless ones
    assert labels_of(["LABEL_1", "LABEL_0"], {0: "LABEL_0", 1: "LABEL_1"}).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("id2label", "problem"),
    [
        ({0: "ant", 1: "bee"}, "has 7 classes, the model 2"),
        (ID2LABEL | {3: "elk"}, "has a class 'dog', the model has none of that name"),
    ],
)
def test_a_model_of_other_classes_is_refused(dataset: ShardedDataset, id2label: dict[int, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"data.path: {problem}; use data with the classes of the model"):
        Classification(experiment(), dataset, tiny_processor(), tiny_vit(id2label))


def test_a_point_is_searched_sliced_retrained_and_exported(tmp_path: Path, dataset: ShardedDataset) -> None:
    model = tiny_vit()
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    settings = experiment().model_dump(mode="json") | {
        "store": str(tmp_path / "store"),
        "model": {"family": "vit", "path": str(tmp_path / "model")},
        "data": {"path": dataset.root},
        "search": {"interval": 1, "learning_rate": 1e-3},
        "distill": {"weight": 0.5},
    }
    manifest = manifest_of(parse(settings))
    assert manifest["headline"] == "acc1" and manifest["checks"]["masked_vs_sliced"] <= 1e-5
    assert manifest["budget"]["achieved"] == pytest.approx(0.5, abs=0.005)
    sliced = AutoModelForImageClassification.from_pretrained(
        Store(settings["store"]).path(PointPaths(manifest["hash"]).model)
    )
    removed = manifest["budget"]["removed"]["params"]
    assert count_parameters(sliced) == count_parameters(model) - removed and removed > 0
    for split in ("validation", "test"):
        assert task_of(dataset).evaluate(copy.deepcopy(sliced), split) == manifest["metrics"][split]
