"""Augmentation of small drawings on white: shift, scale, rotation and colour; never a flip, which would turn arrows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MAX_SHIFT = 0.1  # of half the side
_SCALES = (0.8, 1.1)
_MAX_ROTATION = np.pi / 12
_BRIGHTNESS = _CONTRAST = _SATURATION = 0.3
_GREY_WEIGHTS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Changes:
    """What happens to each image of a batch.

    :param theta: float32 (b, 2, 3), the inverse affine map in the coordinates of `affine_grid`
    :param colour: float32 (3, b, 1, 1, 1), factors of brightness, contrast and saturation
    """

    theta: Tensor
    colour: Tensor

    def __getitem__(self, part: slice | Tensor) -> "Changes":
        return Changes(self.theta[part], self.colour[:, part])


def draw(count: int, draws: np.random.Generator) -> Changes:
    """Draw the changes of `count` images."""
    angle = draws.uniform(-_MAX_ROTATION, _MAX_ROTATION, count)
    zoom = 1 / draws.uniform(*_SCALES, count)
    shift = draws.uniform(-_MAX_SHIFT, _MAX_SHIFT, (2, count))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    theta = np.stack([np.stack([cos, -sin, shift[0]], -1), np.stack([sin, cos, shift[1]], -1)], 1)
    spread = np.array([_BRIGHTNESS, _CONTRAST, _SATURATION])[:, None]
    colour = 1 + draws.uniform(-1, 1, (3, count)) * spread
    return Changes(torch.from_numpy(theta).float(), torch.from_numpy(colour).float()[..., None, None, None])


def apply(images: Tensor, changes: Changes, image_size: int) -> Tensor:
    """Return changed images, float32 (b, 3, S, S) in [0, 1].

    :param images: uint8 (b, 3, H, W)
    """
    # what lies outside is sampled as 0, so the distance from white is sampled: outside is white
    ink = 1 - images.float() / 255
    grid = torch.nn.functional.affine_grid(changes.theta, [len(images), 3, image_size, image_size], align_corners=False)
    pixels = 1 - torch.nn.functional.grid_sample(ink, grid, padding_mode="zeros", align_corners=False)
    brightness, contrast, saturation = changes.colour
    grey = (pixels * torch.tensor(_GREY_WEIGHTS).view(3, 1, 1)).sum(1, keepdim=True)
    pixels = torch.lerp(grey, pixels, saturation)
    mean = grey.mean((2, 3), keepdim=True)
    changed: Tensor = torch.lerp(mean, pixels, contrast) * brightness
    return changed.clamp(0, 1)
