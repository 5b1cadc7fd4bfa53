"""Semantic segmentation: cross-entropy over pixels, mean intersection over union by a sliding window."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.config import Experiment
from upop_ray.config import Segmentation as Settings
from upop_ray.data.batches import training_order
from upop_ray.data.classes import class_names
from upop_ray.data.images import Preprocessing, preprocessing_of
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.segment_batches import SegmentBatch, SegmentBatches
from upop_ray.data.segment_changes import SegmentedDrawings, SegmenterPhotographs, SegmentViews
from upop_ray.data.segments import IGNORED, SegmentedSplit, load_segments
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import ConfigError, DataError
from upop_ray.tasks.collective import average
from upop_ray.tasks.evaluation import BATCH, SPLITS, device_of, over_ranks, row_batches
from upop_ray.tasks.sliding_window import SlidingWindow
from upop_ray.tasks.spec import Loss, StatelessTask

#: logits that an evaluation batch may have: 256 MiB of them
_LOGITS_AT_ONCE = 2**26


class Segmentation(StatelessTask):
    """Segmentation for models that answer images with ``logits`` of their size (Segmenter and its like)."""

    headline = "mean_iou"

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training split.

        :raises ConfigError: the model has other classes than the data, settings contradict each other, or a batch
            exceeds the data
        :raises DataError: a shard is missing or corrupt, or holds no segmentation
        """
        task = experiment.task
        assert isinstance(task, Settings)
        config: Any = model.config
        self.dataset, self.classes = dataset, class_names(dataset)
        if config.num_labels != len(self.classes):
            problem = f"{experiment.data.path} has {len(self.classes)} classes, the model {config.num_labels}"
            raise ConfigError("data.path", problem, "use a model that was trained on the classes of the data")
        window = task.window or config.image_size
        _check(task, window)
        self.window = SlidingWindow(window, task.stride or window, task.scales, task.mirror)
        self.patch: int = config.patch_size
        self.views = _views(task, preprocessing_of(processor, window))
        split = read_once(load_segments, dataset, "train")
        order = training_order(dataset, split, experiment.batch_size, experiment.seed)
        self.batches = SegmentBatches(split, order, self.views)

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> SegmentBatch:
        return self.batches.batch(cursor, rank, world_size)

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: SegmentBatch, cursor: Cursor) -> Loss:
        device = device_of(model)
        logits = forward(pixel_values=batch.pixel_values.to(device)).logits.float()
        return Loss(pixel_loss(logits, batch.labels.to(device)), patch_logits(logits, self.patch))

    def logits(self, teacher: nn.Module, batch: SegmentBatch) -> Tensor:
        logits: Tensor = teacher(pixel_values=batch.pixel_values.to(device_of(teacher))).logits
        return patch_logits(logits.float(), self.patch)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        examples = read_once(load_segments, self.dataset, SPLITS[split])
        counts = confusion_of(model.eval(), examples, self.views, self.window)
        if not counts.any():
            raise DataError(f"{examples.pictures.place}: no pixel has a class")
        return segmentation_metrics(counts, self.classes)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy whose mean over ranks is the mean over all pixels of the global batch that have a class.

    :param logits: (b, classes, H, W) of this rank's rows
    :param labels: int64 (b, H, W)
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    known = average((labels != IGNORED).sum().float())
    # a batch of padding alone has the loss 0
    return total / torch.where(known > 0, known, 1.0)


def patch_logits(logits: Tensor, patch: int) -> Tensor:
    """Rows of class logits, one for each patch, taken at its centre: (b * patches, classes).

    Logits in between are interpolations of those of patches, so that a teacher says nothing more about them.

    :param logits: (b, classes, H, W)
    """
    centres = logits[:, :, patch // 2 :: patch, patch // 2 :: patch]
    return centres.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def confusion_of(model: nn.Module, split: SegmentedSplit, views: SegmentViews, window: SlidingWindow) -> Tensor:
    """Confusion matrix of all pixels of a split, (classes, classes), see :func:`confusion`; ranks share the images."""
    device = device_of(model)

    def forward(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixel_values=pixels).logits
        return logits.float()

    def count(images: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        total = torch.zeros(1, split.classes, split.classes, dtype=torch.long, device=device)
        for pixels, maps in images:
            predicted = window.probabilities(forward, pixels.to(device)).argmax(1)
            total += confusion(maps.to(device), predicted, split.classes)
        return total

    at_once = _LOGITS_AT_ONCE // (split.classes * window.side**2)
    rows = row_batches(len(split), min(BATCH, max(1, at_once)))
    return over_ranks(rows, lambda part: list(views.evaluation(split, part)), count).sum(0)


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many pixels of each true class (rows) were taken for each class (columns): int64 (classes, classes).

    :param truth: integers of any shape; pixels of 255 are not counted
    :param predicted: integers of the same shape
    """
    known = truth != IGNORED
    pairs = truth[known].long() * classes + predicted[known].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def segmentation_metrics(counts: Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """Mean IoU, pixel and mean accuracy, and the IoU of each class, in percent.

    A class that is neither in truth nor in prediction has no IoU and no part in the mean; the mean accuracy is over the
    classes in the truth.

    :param counts: confusion matrix of :func:`confusion`, with at least one pixel
    """
    counts = counts.double().cpu()
    hits, true, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    union = true + predicted - hits
    iou, accuracy = 100 * hits / union, 100 * hits / true
    return {
        "mean_iou": iou[union > 0].mean().item(),
        "pixel_accuracy": (100 * hits.sum() / counts.sum()).item(),
        "mean_accuracy": accuracy[true > 0].mean().item(),
        **{f"iou/{name}": iou[place].item() for place, name in enumerate(classes) if union[place] > 0},
    }


def _views(task: Settings, preprocessing: Preprocessing) -> SegmentViews:
    if task.augmentation == "drawings":
        return SegmentedDrawings(preprocessing)
    return SegmenterPhotographs(preprocessing, task.resize)


def _check(task: Settings, window: int) -> None:
    if task.stride > window:
        problem = f"{task.stride} is more than the window of {window}, so that pixels are left out"
        raise ConfigError("task.stride", problem, f"use at most {window}")
    if task.resize[0] > task.resize[1]:
        raise ConfigError("task.resize", f"{list(task.resize)} is no range", "write the smaller scale first")
