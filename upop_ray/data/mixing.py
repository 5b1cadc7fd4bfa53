"""Mixup and CutMix of the images of a batch and of their targets (Zhang et al., 2018; Yun et al., 2019)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CUTMIX_SHARE = 0.5  # of the batches, where both are on


@dataclass(frozen=True)
class Mix:
    """How each image of one batch is mixed with its partner.

    :param share: what remains of the image itself, in [0, 1]
    :param box: (top, bottom, left, right) of what the partner covers; without one the partner shines through everywhere
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def pixels(self, own: Tensor, partners: Tensor) -> Tensor:
        """Return mixed images, (b, 3, S, S)."""
        if self.box is None:
            return own * self.share + partners * (1 - self.share)
        top, bottom, left, right = self.box
        mixed = own.clone()
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return mixed

    def targets(self, own: Tensor, partners: Tensor) -> Tensor:
        """Return mixed targets, (b, classes)."""
        return own * self.share + partners * (1 - self.share)


@dataclass(frozen=True)
class Mixing:
    """What is drawn for each batch; a strength of 0 is off.

    :param mixup: both parameters of the beta distribution of the share under mixup
    :param cutmix: likewise of the share of the area under CutMix
    """

    mixup: float
    cutmix: float

    @property
    def is_on(self) -> bool:
        """Whether anything is ever mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, image_size: int, draws: np.random.Generator) -> Mix:
        """Draw for one batch of square images; one of the two must be on."""
        both = self.mixup > 0 and self.cutmix > 0
        if (draws.random() < _CUTMIX_SHARE) if both else self.cutmix > 0:
            return cut(draws.beta(self.cutmix, self.cutmix), image_size, draws)
        return Mix(draws.beta(self.mixup, self.mixup))


def cut(share: float, image_size: int, draws: np.random.Generator) -> Mix:
    """Draw a box that covers ``1 - share`` of the image around a uniform centre.

    Where the box leaves the image it is cut off, and the share of the result is that of its pixels.
    """
    side = int(image_size * np.sqrt(1 - share))
    first, last = (
        np.clip(centre + offset, 0, image_size)
        for centre in [draws.integers(image_size, size=2)]
        for offset in (-(side // 2), (side + 1) // 2)
    )
    covered = float(np.prod(last - first)) / image_size**2
    return Mix(1 - covered, (int(first[0]), int(last[0]), int(first[1]), int(last[1])))


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return targets that give ``smoothing`` to all classes alike and the rest to the label: float32 (b, classes)."""
    targets = torch.full((len(labels), classes), smoothing / classes)
    return targets.scatter_add_(1, labels[:, None], torch.full((len(labels), 1), 1 - smoothing))
