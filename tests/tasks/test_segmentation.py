"""Segmentation: counts and windows against hand computed cases, two processes against one, and a whole point."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSemanticSegmentation

from tests.datasets import write_dataset
from tests.ranks import Ranks
from tests.tiny import tiny_values
from tests.tiny_segments import (
    CLASSES,
    SIDE,
    SIZES,
    drawing,
    png,
    tiny_processor,
    tiny_segmenter,
    write_data,
    write_model,
)
from tests.training.test_point import manifest_of
from upop_ray.config import parse
from upop_ray.data.order import Cursor
from upop_ray.data.segments import load_segments
from upop_ray.data.shards import open_dataset
from upop_ray.errors import ConfigError, DataError
from upop_ray.store import PointPaths, Store
from upop_ray.tasks.collective import average, rank, world_size
from upop_ray.tasks.segmentation import Segmentation, confusion, patch_logits, pixel_loss, segmentation_metrics
from upop_ray.tasks.sliding_window import SlidingWindow
from upop_ray.training.prepared import prepare

TIGHT = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("segments") / "data")


def made(data: Path, batch_size: int = 4, **settings: Any) -> Segmentation:
    task = {"name": "segmentation", "augmentation": "drawings"} | settings
    experiment = parse({"batch_size": batch_size, "data": {"path": str(data)}, "task": task})
    return Segmentation(experiment, open_dataset(str(data)), tiny_processor(), tiny_segmenter())


def test_confusion_counts_pixels_that_have_a_class() -> None:
    truth = torch.tensor([[0, 0, 1], [2, 255, 1]])
    predicted = torch.tensor([[0, 1, 1], [0, 2, 1]])
    assert confusion(truth.byte(), predicted, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_metrics_by_hand() -> None:
    # rows are the truth; the last class is in neither
    counts = torch.tensor([[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    metrics = segmentation_metrics(counts, ("a", "b", "c", "d"))
    assert metrics == pytest.approx(
        {
            "iou/a": 100 / 3,  # one hit, one that was taken for b, one c that was taken for it
            "iou/b": 200 / 3,
            "iou/c": 0.0,
            "mean_iou": 100 / 3,
            "pixel_accuracy": 60.0,
            "mean_accuracy": 50.0,  # 1/2, 2/2, 0/1
        }
    )


def test_a_class_that_is_only_predicted_lowers_the_mean_iou_and_not_the_mean_accuracy() -> None:
    metrics = segmentation_metrics(torch.tensor([[3, 1], [0, 0]]), ("a", "b"))
    assert metrics["iou/b"] == 0 and metrics["mean_iou"] == pytest.approx(75 / 2)
    assert metrics["mean_accuracy"] == pytest.approx(75)


def test_overlapping_windows_are_averaged() -> None:
    calls: list[Tensor] = []

    def number_of_window(part: Tensor) -> Tensor:
        calls.append(part)
        return torch.full((1, 1, 2, 2), float(len(calls) - 1))

    images = torch.arange(10.0).view(1, 1, 2, 5)
    found = SlidingWindow(2, 2).logits(number_of_window, images)
    # windows begin at columns 0, 2 and, to end at the border, 3
    assert [part[0, 0, 0, 0].item() for part in calls] == [0, 2, 3]
    assert found.tolist() == [[[[0, 0, 1, 1.5, 2]] * 2]]


@pytest.mark.parametrize(("side", "stride"), [(4, 4), (4, 3), (5, 1), (7, 7)])
def test_a_pointwise_model_does_not_notice_windows(side: int, stride: int) -> None:
    images = torch.randn(2, 3, 7, 11, generator=torch.Generator().manual_seed(0))
    found = SlidingWindow(side, stride).logits(lambda x: 3 * x, images)
    torch.testing.assert_close(found, 3 * images)


def test_the_shorter_side_of_an_image_fills_the_window() -> None:
    seen: list[Tensor] = []

    def forward(part: Tensor) -> Tensor:
        seen.append(part)
        return part

    images = torch.randn(1, 3, 60, 90, generator=torch.Generator().manual_seed(0))
    found = SlidingWindow(32, 32).probabilities(forward, images)
    scaled = functional.interpolate(images, (32, 48), mode="bilinear")
    assert [part.shape[2:] for part in seen] == [(32, 32)] * 2
    assert torch.equal(seen[0], scaled[..., :32]) and torch.equal(seen[1], scaled[..., 16:])
    torch.testing.assert_close(found, functional.interpolate(scaled, (60, 90), mode="bilinear").softmax(1))


@torch.no_grad()
def test_a_window_of_the_whole_image_is_a_plain_forward_pass() -> None:
    model, images = tiny_segmenter().eval(), torch.randn(2, 3, SIDE, SIDE)
    found = SlidingWindow(SIDE, SIDE).probabilities(lambda x: model(x).logits, images)
    torch.testing.assert_close(found, model(images).logits.softmax(1))


@torch.no_grad()
def test_scales_and_mirror_images_are_averaged_as_probabilities() -> None:
    model, images = tiny_segmenter().eval(), torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def forward(x: Tensor) -> Tensor:
        return model(x).logits

    def resized(x: Tensor, side: int) -> Tensor:
        return functional.interpolate(x, (side, side), mode="bilinear")

    # at half the size the image is enlarged again to fill the window; at 1.5 four windows cover it
    blurred = forward(resized(resized(images, SIDE // 2), SIDE))
    large = resized(images, 48)
    enlarged, count = torch.zeros(1, len(CLASSES), 48, 48), torch.zeros(48, 48)
    for top in (0, 16):
        for left in (0, 16):
            part = (..., slice(top, top + SIDE), slice(left, left + SIDE))
            enlarged[part] += forward(large[part])
            count[part] += 1
    expected = (blurred.softmax(1) + resized(enlarged / count, SIDE).softmax(1)) / 2
    found = SlidingWindow(SIDE, SIDE, (0.5, 1.5)).probabilities(forward, images)
    torch.testing.assert_close(found, expected)
    mirrored = forward(images.flip(-1)).flip(-1)
    found = SlidingWindow(SIDE, SIDE, mirror=True).probabilities(forward, images)
    torch.testing.assert_close(found, (forward(images).softmax(1) + mirrored.softmax(1)) / 2)
    assert (mirrored - forward(images)).abs().max() > 1e-3


def test_the_loss_is_the_mean_over_pixels_with_a_class() -> None:
    logits = torch.randn(2, 3, 4, 5)
    labels = torch.randint(3, (2, 4, 5))
    labels[0, 1:] = 255
    rows = logits.permute(0, 2, 3, 1)[labels != 255]
    torch.testing.assert_close(pixel_loss(logits, labels), functional.cross_entropy(rows, labels[labels != 255]))
    # a batch of padding alone has no loss, rather than none that is a number
    assert pixel_loss(logits, torch.full_like(labels, 255)) == 0


def test_a_teacher_is_compared_at_the_centre_of_each_patch() -> None:
    logits = torch.arange(64.0).view(1, 1, 8, 8)
    assert patch_logits(logits, 4).flatten().tolist() == [18, 22, 50, 54]
    two = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])[None]
    assert patch_logits(two, 2).tolist() == [[0, 1]] * 4


@torch.no_grad()
def test_logits_are_those_of_the_loss(data: Path) -> None:
    task, model = made(data), tiny_segmenter().eval()
    batch = task.batch(Cursor(), 0, 1)
    loss = task.loss(model, model, batch, Cursor())
    assert loss.logits.shape == (4 * 16, len(CLASSES))
    torch.testing.assert_close(task.logits(model, batch), loss.logits)


def step_and_metrics(data: Path) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """Loss, gradients and metrics of one global batch of photographs, which ranks share."""
    task, model = made(data, augmentation="photographs", mirror=True), tiny_segmenter().eval()
    batch = task.batch(Cursor(1, 2), rank(), world_size())
    loss = task.loss(model, model, batch, Cursor(1, 2)).value
    loss.backward()
    gradients = {name: average(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return average(loss.detach()), gradients, task.evaluate(model, "test")


def test_two_processes_compute_what_one_does(two_ranks: Ranks, data: Path) -> None:
    loss, gradients, metrics = step_and_metrics(data)
    for other_loss, other_gradients, other_metrics in two_ranks.run(step_and_metrics, data):
        torch.testing.assert_close(other_loss, loss, **TIGHT)
        torch.testing.assert_close(other_gradients, gradients, **TIGHT)
        assert other_metrics == metrics


@torch.no_grad()
def test_metrics_are_over_all_pixels_of_the_split(data: Path) -> None:
    task, model = made(data), tiny_segmenter().eval()
    images, maps = load_segments(open_dataset(str(data)), "val").pixels(range(SIZES["val"]))
    # the processor maps [0, 1] to [-1, 1]
    predicted = model(images.float() / 127.5 - 1).logits.argmax(1)
    known = maps != 255
    expected = (predicted == maps)[known].double().mean().item()
    metrics = task.evaluate(model, "validation")
    assert metrics["pixel_accuracy"] == pytest.approx(100 * expected)
    assert {f"iou/{name}" for name in CLASSES} <= set(metrics) and task.headline in metrics


def test_a_segmenter_learns_the_colours(data: Path) -> None:
    task, model = made(data, batch_size=8), tiny_segmenter()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(80):
        cursor = Cursor(*divmod(step, task.steps_per_epoch()))
        loss = task.loss(model.train(), model, task.batch(cursor, 0, 1), cursor).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    maps = load_segments(open_dataset(str(data)), "val").pixels(range(SIZES["val"]))[1]
    all_paper = 100 * (maps == 0).sum() / (maps != 255).sum() / len(CLASSES)
    assert task.evaluate(model, "validation")["mean_iou"] > 2 * all_paper


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 16, "stride": 17}, "task.stride: 17 is more than the window of 16"),
        ({"resize": [2.0, 0.5]}, r"task.resize: \[2.0, 0.5\] is no range"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(data: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(data, **settings)


def test_a_split_of_which_no_pixel_has_a_class_cannot_be_evaluated(tmp_path: Path) -> None:
    rows = {split: [drawing(number) for number in range(4)] for split in ("train", "val")}
    rows["val"] = [row | {"segmentation": png(np.full((SIDE, SIDE), 255, np.uint8))} for row in rows["val"]]
    write_dataset(tmp_path / "data", rows, classes=CLASSES)
    with pytest.raises(DataError, match="split val: no pixel has a class"):
        made(tmp_path / "data").evaluate(tiny_segmenter(), "validation")


def test_a_model_of_other_classes_is_an_error(tmp_path: Path, data: Path) -> None:
    source = open_dataset(str(data))
    rows = {"train": source.split("train").to_pylist()}
    write_dataset(tmp_path / "data", rows, classes=[*CLASSES, "green"])
    with pytest.raises(ConfigError, match=r"data.path: .* has 4 classes, the model 3; use a model"):
        made(tmp_path / "data")


def test_a_point_is_searched_sliced_retrained_and_exported(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_model(tmp_path / "model")
    parts: dict[str, Any] = {
        "task": {"name": "segmentation", "augmentation": "drawings"},
        "model": {"family": "segmenter"},
        "distill": {"weight": 0.1},
        "search": {"ratio": 0.4},
    }
    experiment = parse(tiny_values(tmp_path, **parts))
    manifest = manifest_of(experiment)
    assert manifest["headline"] == "mean_iou"
    assert manifest["budget"]["achieved"] == pytest.approx(0.4, abs=0.005)
    assert manifest["checks"]["masked_vs_sliced"] <= 1e-5
    folder = Store(experiment.store).path(PointPaths(manifest["hash"]).model)
    exported = AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert exported.config.kept_units == manifest["kept_units"]
    assert prepare(experiment).task().evaluate(exported, "test") == manifest["metrics"]["test"]
