"""Training batches of images with one class each: changed, mixed and softened."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from upop_ray.data.batches import Batches, own_places
from upop_ray.data.classes import ClassSplit
from upop_ray.data.mixing import Mixing, smoothed
from upop_ray.data.order import Cursor


@dataclass(frozen=True)
class ClassBatch:
    """pixel_values float32 (b, 3, S, S), and targets float32 (b, classes) of which each row adds up to 1."""

    pixel_values: Tensor
    targets: Tensor


@dataclass(frozen=True)
class ClassBatches(Batches[ClassSplit]):
    """Images with soft targets.

    :param mixing: of each image with the one at the mirrored place of the global batch
    :param labels: int64 (classes,), what the model calls each class of the split
    :param smoothing: what each target gives to all classes alike
    """

    mixing: Mixing
    labels: Tensor
    smoothing: float

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> ClassBatch:
        """Return the part of a rank of a global batch; see :meth:`BatchOrder.step`.

        Partners are mixed across the whole global batch, so that the world size changes nothing. All ranks know all
        rows and changes of a step: a rank makes the views of its partners itself instead of fetching them.
        """
        step, pictures = self.order.step(cursor, rank, world_size), self.split.pictures
        own = own_places(step)
        if not self.mixing.is_on:
            return ClassBatch(self.views.training(pictures, step.own, step, own), self._targets(step.own))
        mix = self.mixing.draw(self.views.image_size, step.draws)
        partners = len(step.whole) - 1 - own
        places, found = np.unique(np.concatenate([own, partners]), return_inverse=True)
        pixels = self.views.training(pictures, step.whole[places], step, places)[torch.from_numpy(found)]
        targets = (self._targets(step.whole[part]) for part in (own, partners))
        return ClassBatch(mix.pixels(*torch.split(pixels, len(own))), mix.targets(*targets))

    def _targets(self, rows: np.ndarray) -> Tensor:
        labels = self.labels[self.split.classes[torch.from_numpy(rows)]]
        return smoothed(labels, len(self.labels), self.smoothing)
