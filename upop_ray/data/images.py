"""Images of a split in memory, and how pixels become model inputs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from upop_ray.data import augment
from upop_ray.data.order import Rows
from upop_ray.errors import DataError


def decode_all(contents: Sequence[bytes], place: str, mode: str = "RGB") -> Tensor:
    """Decode images of one size: uint8 (N, C, H, W).

    :param place: names the data in errors
    :raises DataError: an image cannot be decoded, or is of another size than the others
    """
    images = [decode(content, mode, f"{place}, row {row}") for row, content in enumerate(contents)]
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        raise DataError(f"{place}: images must have one size, found {sorted(sizes)}")
    stacked = torch.from_numpy(np.stack(images))
    return (stacked.permute(0, 3, 1, 2) if stacked.dim() == 4 else stacked[:, None]).contiguous()


def decode_distinct(contents: Sequence[bytes], place: str) -> tuple[Tensor, Tensor]:
    """Decode each distinct image once: uint8 (images, 3, H, W), and int64 (N,), the image of each row."""
    numbers = {content: number for number, content in enumerate(dict.fromkeys(contents))}
    return decode_all(list(numbers), place), torch.tensor([numbers[content] for content in contents])


def decode(content: bytes, mode: str, place: str) -> np.ndarray:
    """Decode one image: uint8 (H, W, channels of the Pillow mode), or (H, W) where that has one.

    :param place: names the image in errors
    :raises DataError: it cannot be decoded
    """
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert(mode))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{place}: not a readable image: {error}") from error


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become model inputs.

    :param image_size: side in pixels
    :param mean: of each channel, for values in [0, 1]
    :param std: standard deviation of each channel, likewise
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map values in [0, 1], (b, 3, S, S), to what the model was trained on."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def prepare(self, images: Tensor) -> Tensor:
        """Map uint8 images (b, 3, H, W) to model inputs (b, 3, S, S), without augmentation."""
        pixels = images.float() / 255
        if pixels.shape[-1] != self.image_size or pixels.shape[-2] != self.image_size:
            size = (self.image_size, self.image_size)
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.normalise(pixels)

    def augmented(self, images: Tensor, step: Rows) -> Tensor:
        """Map the uint8 images (b, 3, H, W) of a rank's rows to changed model inputs (b, 3, S, S)."""
        changes = augment.draw(len(step.whole), step.draws)[step.part]
        return self.normalise(augment.apply(images, changes, self.image_size))


def preprocessing_of(processor: Any, image_size: int) -> Preprocessing:
    """Preprocessing by the mean and deviation of a transformers processor (or of its image processor)."""
    image_processor = getattr(processor, "image_processor", processor)
    return Preprocessing(image_size, tuple(image_processor.image_mean), tuple(image_processor.image_std))
