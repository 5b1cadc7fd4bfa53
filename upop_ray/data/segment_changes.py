"""Augmentation of images together with the class of each of their pixels."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from upop_ray.data import augment
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Rows

#: in a map: no class is known
IGNORED = 255
#: a crop in which one class covers more than this is drawn again, so many times (mmsegmentation, as published)
_LARGEST_SHARE = 0.75
_TRIES = 10
#: photometric distortion as published (of SSD), each with this chance
_CHANCE = 0.5
_BRIGHTNESS = 32.0  # of 255
_FACTORS = (0.5, 1.5)  # of contrast and saturation
_HUE = 0.1  # of the colour circle


def changed_drawings(images: Tensor, maps: Tensor, step: Rows, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Shift, scale and rotate drawings on white; what comes in from outside is white, and background (class 0).

    :param images: uint8 (b, 3, H, W), those of the rank's rows
    :param maps: uint8 (b, H, W)
    :returns: model inputs float32 (b, 3, S, S), and int64 (b, S, S)
    """
    changes = augment.draw(len(step.whole), step.draws)[step.part]
    side = preprocessing.image_size
    pixels = augment.apply(images, changes, side)
    grid = functional.affine_grid(changes.theta, [len(maps), 1, side, side], align_corners=False)
    sampled = functional.grid_sample(maps[:, None].float(), grid, mode="nearest", align_corners=False)
    return preprocessing.normalise(pixels), sampled[:, 0].long()


def changed_photographs(
    images: Tensor, maps: Tensor, step: Rows, preprocessing: Preprocessing, resize: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Scale, crop, mirror and distort the colours of photographs; what a crop lacks is padded and of no class.

    Arguments and results as those of :func:`changed_drawings`.

    :param resize: range of the random scale
    """
    # how much is drawn depends on the image, so each has its own generator
    seeds = step.draws.integers(2**63, size=len(step.whole))[step.part]
    changed = [
        _photograph(image, classes, np.random.default_rng(seed), preprocessing, resize)
        for image, classes, seed in zip(images, maps, seeds, strict=True)
    ]
    pixels, labels = zip(*changed, strict=True)
    return torch.stack(pixels), torch.stack(labels)


def _photograph(
    image: Tensor,
    classes: Tensor,
    draws: np.random.Generator,
    preprocessing: Preprocessing,
    resize: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    side = preprocessing.image_size
    image, classes = _scaled(image, classes, draws.uniform(*resize))
    top, left = _place(classes, side, draws)
    image, classes = (part[..., top : top + side, left : left + side] for part in (image, classes))
    if draws.random() < _CHANCE:
        image, classes = image.flip(-1), classes.flip(-1)
    pixels = preprocessing.normalise(_distorted(image, draws).float()[None] / 255)[0]
    missing = (0, side - classes.shape[1], 0, side - classes.shape[0])
    # zeros after normalisation, as published
    return functional.pad(pixels, missing), functional.pad(classes.long(), missing, value=IGNORED)


def _scaled(image: Tensor, classes: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(length * scale)) for length in classes.shape]
    pixels = functional.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)
    nearest = functional.interpolate(classes[None, None].float(), size, mode="nearest-exact")
    return pixels[0].round().byte(), nearest[0, 0].byte()


def _place(classes: Tensor, side: int, draws: np.random.Generator) -> tuple[int, int]:
    """Where a crop begins (top, left); drawn again while one class covers most of it."""
    height, width = classes.shape
    for _ in range(_TRIES):
        top = int(draws.integers(max(height - side, 0) + 1))
        left = int(draws.integers(max(width - side, 0) + 1))
        counts = torch.bincount(classes[top : top + side, left : left + side].flatten(), minlength=IGNORED + 1)
        known = counts[:IGNORED]
        if int((known > 0).sum()) > 1 and int(known.max()) < _LARGEST_SHARE * int(known.sum()):
            break
    return top, left


def _distorted(image: Tensor, draws: np.random.Generator) -> Tensor:
    """Change brightness, contrast (first or last), saturation and hue of a uint8 image (3, H, W)."""
    brightness = _sometimes(draws, (-_BRIGHTNESS, _BRIGHTNESS), otherwise=0.0)
    contrast, saturation = (_sometimes(draws, _FACTORS, otherwise=1.0) for _ in range(2))
    hue = _sometimes(draws, (-_HUE, _HUE), otherwise=0.0)
    first = draws.random() < _CHANCE
    values = _linear(image.permute(1, 2, 0).numpy(), shift=brightness)
    values = _linear(values, contrast) if first else values
    values = _recoloured(values, saturation, hue)
    values = values if first else _linear(values, contrast)
    return torch.from_numpy(values).permute(2, 0, 1)


def _sometimes(draws: np.random.Generator, bounds: tuple[float, float], otherwise: float) -> float:
    drawn = draws.uniform(*bounds)
    return float(drawn) if draws.random() < _CHANCE else otherwise


def _linear(values: NDArray[np.uint8], factor: float = 1.0, shift: float = 0.0) -> NDArray[np.uint8]:
    changed: NDArray[np.float64] = np.rint(values * factor + shift)
    return changed.clip(0, 255).astype(np.uint8)


def _recoloured(values: NDArray[np.uint8], saturation: float, hue: float) -> NDArray[np.uint8]:
    """Multiply the saturation and turn the hue (as a part of the circle) of an image (H, W, 3)."""
    if saturation == 1.0 and hue == 0.0:
        return values
    hsv = np.array(Image.fromarray(values).convert("HSV"))
    hsv[..., 0] += np.uint8(round(hue * 256) % 256)
    hsv[..., 1] = _linear(hsv[..., 1], saturation)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
