"""What a model sees of images together with the class of each of their pixels."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from upop_ray.data import augment
from upop_ray.data.batches import own_places
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Rows
from upop_ray.data.photographs import fitted
from upop_ray.data.segments import IGNORED, SegmentedSplit
from upop_ray.data.views import generators

#: a crop in which one class covers more than this is drawn again, so many times (mmsegmentation, as published)
_LARGEST_SHARE = 0.75
_TRIES = 10
#: photometric distortion as published (of SSD), each with this chance
_CHANCE = 0.5
_BRIGHTNESS = 32.0  # of 255
_FACTORS = (0.5, 1.5)  # of contrast and saturation
_HUE = 0.1  # of the colour circle


@dataclass(frozen=True)
class SegmentViews(ABC):
    """How images and their maps become model inputs and labels; the side S of crops is that of the preprocessing."""

    preprocessing: Preprocessing

    @abstractmethod
    def training(self, split: SegmentedSplit, step: Rows) -> tuple[Tensor, Tensor]:
        """Return the changed rows of a rank: float32 (b, 3, S, S), and int64 (b, S, S).

        What happens to a row depends on its place in the global batch alone.

        :raises DataError: see :class:`SegmentedSplit`
        """

    @abstractmethod
    def evaluation(self, split: SegmentedSplit, rows: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows without changes, as many at once as are of one size: float32 (b, 3, H, W), uint8 (b, H, W).

        :raises DataError: see :class:`SegmentedSplit`
        """


class SegmentedDrawings(SegmentViews):
    """Drawings on white, all of one size: moved, scaled and rotated; from outside comes white background (class 0)."""

    def training(self, split: SegmentedSplit, step: Rows) -> tuple[Tensor, Tensor]:
        images, maps = split.pixels(step.own)
        changes = augment.draw(len(step.whole), step.draws)[step.part]
        side = self.preprocessing.image_size
        pixels = augment.apply(images, changes, side)
        grid = functional.affine_grid(changes.theta, [len(maps), 1, side, side], align_corners=False)
        sampled = functional.grid_sample(maps[:, None].float(), grid, mode="nearest", align_corners=False)
        return self.preprocessing.normalise(pixels), sampled[:, 0].long()

    def evaluation(self, split: SegmentedSplit, rows: range) -> Iterator[tuple[Tensor, Tensor]]:
        images, maps = split.pixels(rows)
        yield self.preprocessing.normalise(images.float() / 255), maps


@dataclass(frozen=True)
class SegmenterPhotographs(SegmentViews):
    """The recipe of Segmenter (Strudel et al., 2021; rstrudel/segmenter, segm/data/config/ade20k.py).

    The shorter side is brought to that of the crop, times a random factor; then a crop, a flip, and other colours. What
    a crop lacks is padded at the right and the bottom, and of no class.

    :param resize: range of the random factor
    """

    resize: tuple[float, float]

    def training(self, split: SegmentedSplit, step: Rows) -> tuple[Tensor, Tensor]:
        draws = generators(step, own_places(step))
        changed = [self._changed(*pair, own) for pair, own in zip(split.pairs(step.own.tolist()), draws, strict=True)]
        pixels, labels = zip(*changed, strict=True)
        return torch.stack(pixels), torch.stack(labels)

    def evaluation(self, split: SegmentedSplit, rows: range) -> Iterator[tuple[Tensor, Tensor]]:
        for image, classes in split.pairs(rows):
            yield self.preprocessing.normalise(_colours(image)[None].float() / 255), classes[None]

    def _changed(self, photograph: Image.Image, classes: Tensor, draws: np.random.Generator) -> tuple[Tensor, Tensor]:
        side = self.preprocessing.image_size
        size = fitted(classes.shape[0], classes.shape[1], int(side * draws.uniform(*self.resize)))
        image, classes = _scaled(_colours(photograph), classes, size)
        top, left = _place(classes, side, draws)
        image, classes = (part[..., top : top + side, left : left + side] for part in (image, classes))
        if draws.random() < _CHANCE:
            image, classes = image.flip(-1), classes.flip(-1)
        pixels = self.preprocessing.normalise(_distorted(image, draws).float() / 255)
        missing = (0, side - classes.shape[1], 0, side - classes.shape[0])
        # zeros after normalisation, as published
        return functional.pad(pixels, missing), functional.pad(classes.long(), missing, value=IGNORED)


def _colours(image: Image.Image) -> Tensor:
    """A photograph as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _scaled(image: Tensor, classes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
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
