"""Training batches of images with one class each: changed, mixed and softened."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from upop_ray.data.classes import ClassSplit
from upop_ray.data.mixing import Mixing, smoothed
from upop_ray.data.order import Cursor, Order
from upop_ray.data.views import Views


@dataclass(frozen=True)
class ClassBatch:
    """pixel_values float32 (b, 3, S, S), and targets float32 (b, classes) of which each row adds up to 1."""

    pixel_values: Tensor
    targets: Tensor


@dataclass(frozen=True)
class ClassBatches:
    """Deterministic training batches; `len()` is the number of steps of an epoch, an incomplete last batch is dropped.

    :param split: what to train on
    :param views: what the model sees of an image
    :param mixing: of each image with the one at the mirrored place of the global batch
    :param labels: int64 (classes,), what the model calls each class of the split
    :param smoothing: what each target gives to all classes alike
    """

    split: ClassSplit
    order: Order
    views: Views
    mixing: Mixing
    labels: Tensor
    smoothing: float

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> ClassBatch:
        """Return the part of a rank of a global batch; see :meth:`Order.step`.

        Partners are mixed across the whole global batch, so that the world size changes nothing. All ranks know all
        rows and changes of a step: a rank makes the views of its partners itself instead of fetching them.
        """
        step = self.order.step(cursor, rank, world_size)
        own = np.arange(len(step.whole))[step.part]
        if not self.mixing.is_on:
            return ClassBatch(self.views.training(self.split, step, own), self._targets(step.own))
        mix = self.mixing.draw(self.views.image_size, step.draws)
        partners = len(step.whole) - 1 - own
        places, found = np.unique(np.concatenate([own, partners]), return_inverse=True)
        pixels = self.views.training(self.split, step, places)[torch.from_numpy(found)]
        targets = (self._targets(step.whole[part]) for part in (own, partners))
        return ClassBatch(mix.pixels(*torch.split(pixels, len(own))), mix.targets(*targets))

    def _targets(self, rows: np.ndarray) -> Tensor:
        labels = self.labels[self.split.classes[torch.from_numpy(rows)]]
        return smoothed(labels, len(self.labels), self.smoothing)
