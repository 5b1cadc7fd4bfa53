"""Image classification: soft targets in training, accuracy in evaluation (the recipe of DeiT, ALGORITHM section 3)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.config import Classification as Settings
from upop_ray.config import Experiment
from upop_ray.data.batches import training_order
from upop_ray.data.class_batches import ClassBatch, ClassBatches
from upop_ray.data.classes import class_names, load_classes
from upop_ray.data.images import preprocessing_of
from upop_ray.data.mixing import Mixing
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.rand_augment import parse_rand_augment
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.views import DeitPhotographs, Drawings
from upop_ray.errors import ConfigError
from upop_ray.tasks.evaluation import SPLITS, device_of, over_ranks, row_batches
from upop_ray.tasks.spec import Loss, StatelessTask

_VIEWS: Mapping[str, type[DeitPhotographs | Drawings]] = {"photographs": DeitPhotographs, "drawings": Drawings}
_TOP = (1, 5)


class Classification(StatelessTask):
    """Classification for models that map ``pixel_values`` to ``logits`` (ViTForImageClassification and its like)."""

    headline = "acc1"

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training split.

        :raises ConfigError: the classes are not those of the model, a setting cannot be read, or a batch exceeds the
            data
        :raises DataError: a shard is missing or corrupt
        """
        task = experiment.task
        assert isinstance(task, Settings)
        config: Any = model.config
        self.dataset, self.labels = dataset, labels_of(class_names(dataset), config.id2label)
        preprocessing = preprocessing_of(processor, config.image_size)
        rand_augment = parse_rand_augment(task.rand_augment)
        self.views = _VIEWS[task.augmentation](preprocessing, rand_augment, task.erasing)
        split = read_once(load_classes, dataset, "train")
        self.batches = ClassBatches(
            split,
            training_order(dataset, split, experiment.batch_size, experiment.seed, task.repeats),
            self.views,
            Mixing(task.mixup, task.cutmix),
            self.labels,
            task.label_smoothing,
        )

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> ClassBatch:
        return self.batches.batch(cursor, rank, world_size)

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: ClassBatch, cursor: Cursor) -> Loss:
        logits = classified(forward, batch.pixel_values, device_of(model))
        return Loss(functional.cross_entropy(logits, batch.targets.to(logits)), logits)

    def logits(self, teacher: nn.Module, batch: ClassBatch) -> Tensor:
        return classified(teacher, batch.pixel_values, device_of(teacher))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        examples = read_once(load_classes, self.dataset, SPLITS[split])
        model.eval()

        def prepared(rows: range) -> tuple[Tensor, Tensor]:
            labels = self.labels[examples.classes[rows.start : rows.stop]]
            return self.views.evaluation(examples.pictures, rows), labels

        found = over_ranks(row_batches(len(examples)), prepared, lambda batch: _hits(model, *batch))
        return {f"acc{k}": 100 * share for k, share in zip(_TOP, found.double().mean(0).tolist(), strict=True)}


def labels_of(names: Sequence[str], id2label: Mapping[int, str]) -> Tensor:
    """What the model calls each class of the data: by name, or in order where the model has no names; int64 (classes,).

    :param id2label: names of the model's classes, as transformers configs have them
    :raises ConfigError: the model has other classes, or another number of them
    """
    numbers = {label: number for number, label in id2label.items()}
    missing = [name for name in names if name not in numbers]
    if len(names) != len(id2label):
        problem = f"has {len(names)} classes, the model {len(id2label)}"
    elif not missing:
        return torch.tensor([numbers[name] for name in names])
    elif numbers == {f"LABEL_{number}": number for number in id2label}:
        return torch.arange(len(names))
    else:
        problem = f"has a class {missing[0]!r}, the model has none of that name"
    raise ConfigError("data.path", problem, "use data with the classes of the model (id2label in its config.json)")


def classified(forward: Callable[..., Any], pixel_values: Tensor, device: torch.device) -> Tensor:
    """Logits of the classes in fp32, (b, classes)."""
    logits: Tensor = forward(pixel_values=pixel_values.to(device)).logits
    return logits.float()


def _hits(model: nn.Module, pixel_values: Tensor, labels: Tensor) -> Tensor:
    logits = classified(model, pixel_values, device_of(model))
    return hits(logits, labels.to(logits.device))


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each label is the best, and among the best five, of its row: int64 (b, 2)."""
    best = logits.topk(min(_TOP[-1], logits.shape[1])).indices == labels[:, None]
    return torch.stack([best[:, :k].any(1) for k in _TOP], 1).long()
