"""What a classifier sees of an image in training and in evaluation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from upop_ray.data import augment
from upop_ray.data.classes import ClassSplit
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Rows
from upop_ray.data.photographs import as_pixels, centre_crop, erased, random_crop
from upop_ray.data.rand_augment import RandAugment

_FLIPPED = 0.5
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Views(ABC):
    """How the images of a split become model inputs.

    :param rand_augment: further changes in training, if any
    :param erasing: probability that a box of a training image is erased
    """

    preprocessing: Preprocessing
    rand_augment: RandAugment | None
    erasing: float

    @property
    def image_size(self) -> int:
        """Side of the inputs in pixels."""
        return self.preprocessing.image_size

    @abstractmethod
    def training(self, split: ClassSplit, step: Rows, places: np.ndarray) -> Tensor:
        """Return changed images at these places of the global batch: float32 (places, 3, S, S).

        What happens to an image depends on its place alone, not on which places are asked for.

        :raises DataError: see :class:`ClassSplit`
        """

    @abstractmethod
    def evaluation(self, split: ClassSplit, rows: range) -> Tensor:
        """Return these rows without changes: float32 (rows, 3, S, S).

        :raises DataError: see :class:`ClassSplit`
        """


class Photographs(Views):
    """Random crops and flips of photographs of any size; the middle of the photograph in evaluation."""

    def training(self, split: ClassSplit, step: Rows, places: np.ndarray) -> Tensor:
        rows, generators = step.whole[places].tolist(), _generators(step, places)
        return torch.stack([self._view(split.image(row), draws) for row, draws in zip(rows, generators, strict=True)])

    def evaluation(self, split: ClassSplit, rows: range) -> Tensor:
        pixels = [as_pixels(centre_crop(split.image(row), self.image_size)) for row in rows]
        return self.preprocessing.normalise(torch.stack(pixels))

    def _view(self, image: Image.Image, draws: np.random.Generator) -> Tensor:
        image = random_crop(image, self.image_size, draws)
        if draws.random() < _FLIPPED:
            image = ImageOps.mirror(image)
        if self.rand_augment is not None:
            mean = tuple(round(255 * value) for value in self.preprocessing.mean)
            image = self.rand_augment(image, draws, mean)
        return erased(self.preprocessing.normalise(as_pixels(image)), self.erasing, draws)


class Drawings(Views):
    """Gentle changes of small drawings on white, all of one size; the whole drawing in evaluation."""

    def training(self, split: ClassSplit, step: Rows, places: np.ndarray) -> Tensor:
        changes = augment.draw(len(step.whole), step.draws)[torch.from_numpy(places)]
        generators = _generators(step, places)
        images = split.pixels[torch.from_numpy(step.whole[places])]
        if self.rand_augment is not None:
            pairs = zip(images, generators, strict=True)
            images = torch.stack([_redrawn(image, self.rand_augment, draws) for image, draws in pairs])
        pixels = self.preprocessing.normalise(augment.apply(images, changes, self.image_size))
        pairs = zip(pixels, generators, strict=True)
        return torch.stack([erased(image, self.erasing, draws) for image, draws in pairs])

    def evaluation(self, split: ClassSplit, rows: range) -> Tensor:
        return self.preprocessing.prepare(split.pixels[rows.start : rows.stop])


def _redrawn(image: Tensor, rand_augment: RandAugment, draws: np.random.Generator) -> Tensor:
    changed = rand_augment(Image.fromarray(image.permute(1, 2, 0).numpy()), draws, _WHITE)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


def _generators(step: Rows, places: np.ndarray) -> list[np.random.Generator]:
    """A generator for each place: how much is drawn depends on the image, and not every rank changes every image."""
    seeds = step.draws.integers(2**63, size=len(step.whole))
    return [np.random.default_rng(seed) for seed in seeds[places]]
