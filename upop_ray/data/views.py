"""What a model sees of the images of a split, in training and in evaluation: the recipes of the published models."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from upop_ray.data import augment
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Rows
from upop_ray.data.photographs import as_pixels, centre_crop, erased, random_crop, squared
from upop_ray.data.pictures import Pictures
from upop_ray.data.rand_augment import RandAugment

_FLIPPED = 0.5
_DEIT_AREA = (0.08, 1.0)
_BLIP_AREA = (0.5, 1.0)
_BLIP_CHANGES = RandAugment(magnitude=5.0, layers=2, probability=0.5, operations="blip")
_GREY, _WHITE = (128, 128, 128), (255, 255, 255)


@dataclass(frozen=True)
class Views(ABC):
    """How images become model inputs; the side S of the inputs is that of the preprocessing."""

    preprocessing: Preprocessing

    @property
    def image_size(self) -> int:
        """Side of the inputs in pixels."""
        return self.preprocessing.image_size

    @abstractmethod
    def training(self, pictures: Pictures, rows: np.ndarray, step: Rows, places: np.ndarray) -> Tensor:
        """Return changed images: float32 (places, 3, S, S).

        What happens to an image depends on its place alone, not on which places are asked for. Each call draws anew.

        :param places: in the global batch
        :param rows: the picture at each of them
        :raises DataError: see :class:`Pictures`
        """

    @abstractmethod
    def evaluation(self, pictures: Pictures, rows: Iterable[int]) -> Tensor:
        """Return images without changes: float32 (rows, 3, S, S).

        :raises DataError: see :class:`Pictures`
        """


class Photographs(Views):
    """Photographs of any size, each decoded once."""

    def training(self, pictures: Pictures, rows: np.ndarray, step: Rows, places: np.ndarray) -> Tensor:
        pairs = zip(pictures.images(rows.tolist()), generators(step, places), strict=True)
        return torch.stack([self._changed(image, draws) for image, draws in pairs])

    def evaluation(self, pictures: Pictures, rows: Iterable[int]) -> Tensor:
        pixels = pictures.changed(rows, lambda image: as_pixels(self._whole(image)))
        return self.preprocessing.normalise(torch.stack(pixels))

    @abstractmethod
    def _changed(self, image: Image.Image, draws: np.random.Generator) -> Tensor:
        """A photograph in training: float32 (3, S, S)."""

    @abstractmethod
    def _whole(self, image: Image.Image) -> Image.Image:
        """What is left of a photograph in evaluation, of the side S."""


class BlipPhotographs(Photographs):
    """The recipe of BLIP for all its tasks (Li et al., 2022; salesforce/BLIP, data/__init__.py), and of UPop for CLIP.

    A crop of 0.5 to 1 of the area, a flip (also where a text says left or right), RandAugment(2, 5); the whole
    photograph as a square in evaluation.
    """

    def _changed(self, image: Image.Image, draws: np.random.Generator) -> Tensor:
        image = _flipped(random_crop(image, self.image_size, _BLIP_AREA, draws), draws)
        return self.preprocessing.normalise(as_pixels(_BLIP_CHANGES(image, draws, _GREY)))

    def _whole(self, image: Image.Image) -> Image.Image:
        return squared(image, self.image_size)


@dataclass(frozen=True)
class DeitPhotographs(Photographs):
    """The recipe of DeiT (Touvron et al., 2021): small crops, flips, erased boxes; the middle in evaluation.

    :param rand_augment: further changes, if any
    :param erasing: probability that a box of an image is erased
    """

    rand_augment: RandAugment | None
    erasing: float

    def _changed(self, image: Image.Image, draws: np.random.Generator) -> Tensor:
        image = _flipped(random_crop(image, self.image_size, _DEIT_AREA, draws), draws)
        if self.rand_augment is not None:
            mean = tuple(round(255 * value) for value in self.preprocessing.mean)
            image = self.rand_augment(image, draws, mean)
        return erased(self.preprocessing.normalise(as_pixels(image)), self.erasing, draws)

    def _whole(self, image: Image.Image) -> Image.Image:
        return centre_crop(image, self.image_size)


@dataclass(frozen=True)
class Drawings(Views):
    """Gentle changes of small drawings on white, all of one size; the whole drawing in evaluation.

    Parameters are those of :class:`DeitPhotographs`.
    """

    rand_augment: RandAugment | None = None
    erasing: float = 0.0

    def training(self, pictures: Pictures, rows: np.ndarray, step: Rows, places: np.ndarray) -> Tensor:
        changes = augment.draw(len(step.whole), step.draws)[torch.from_numpy(places)]
        images = pictures.pixels(rows)
        if self.rand_augment is None and not self.erasing:
            return self.preprocessing.normalise(augment.apply(images, changes, self.image_size))
        draws = generators(step, places)
        if self.rand_augment is not None:
            pairs = zip(images, draws, strict=True)
            images = torch.stack([_redrawn(image, self.rand_augment, own) for image, own in pairs])
        pixels = self.preprocessing.normalise(augment.apply(images, changes, self.image_size))
        pairs = zip(pixels, draws, strict=True)
        return torch.stack([erased(image, self.erasing, own) for image, own in pairs])

    def evaluation(self, pictures: Pictures, rows: Iterable[int]) -> Tensor:
        return self.preprocessing.prepare(pictures.pixels(rows))


#: ``task.augmentation`` of the tasks whose published recipe is that of BLIP
BLIP_VIEWS: Mapping[str, Callable[[Preprocessing], Views]] = {"photographs": BlipPhotographs, "drawings": Drawings}


def generators(step: Rows, places: np.ndarray) -> list[np.random.Generator]:
    """A generator for each place: how much is drawn depends on the image, and not every rank changes every image."""
    seeds = step.draws.integers(2**63, size=len(step.whole))
    return [np.random.default_rng(seed) for seed in seeds[places]]


def _flipped(image: Image.Image, draws: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image) if draws.random() < _FLIPPED else image


def _redrawn(image: Tensor, rand_augment: RandAugment, draws: np.random.Generator) -> Tensor:
    changed = rand_augment(Image.fromarray(image.permute(1, 2, 0).numpy()), draws, _WHITE)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)
