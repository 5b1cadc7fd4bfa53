"""How image files become pixels, and how pixels become model inputs."""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from upop_ray.errors import DataError

#: of Pillow: colours, or one index for each pixel
Mode = Literal["RGB", "L"]


def opened(content: bytes, mode: Mode, place: str) -> Image.Image:
    """Decode one image as published: not turned by what the camera noted (EXIF), and colours of any kind as RGB.

    :param mode: with ``L`` the file must hold indices as they are: a palette would be turned into brightness
    :param place: names the image in errors
    :raises DataError: it cannot be decoded, or holds no indices
    """
    try:
        image = Image.open(io.BytesIO(content))
        if mode == "RGB":
            return image.convert(mode)
        image.load()
    # Pillow calls a broken PNG a syntax error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: not a readable {'image' if mode == 'RGB' else 'map'}: {error}") from error
    if image.mode != mode:
        raise DataError(f"{place}: the map is a {image.format} of mode {image.mode}; write class indices as mode L")
    return image


def stacked(images: Sequence[Image.Image], place: str) -> Tensor:
    """Return images of one size as uint8 (N, channels, H, W).

    :param place: names the data in errors
    :raises DataError: an image is of another size than the others
    """
    arrays = [np.asarray(image) for image in images]
    require_one_size({array.shape for array in arrays}, place)
    pixels = torch.from_numpy(np.stack(arrays))
    return (pixels.permute(0, 3, 1, 2) if pixels.dim() == 4 else pixels[:, None]).contiguous()


def require_one_size(sizes: Collection[tuple[int, ...]], place: str) -> None:
    """Make sure that images are of one size.

    :raises DataError: there are several
    """
    if len(sizes) != 1:
        raise DataError(
            f"{place}: images must have one size, found {sorted(sizes)}; task.augmentation=photographs takes any"
        )


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
        """Map values in [0, 1], (..., 3, H, W), to what the model was trained on."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def prepare(self, images: Tensor) -> Tensor:
        """Map uint8 images (b, 3, H, W) to model inputs (b, 3, S, S), without augmentation."""
        pixels = images.float() / 255
        if pixels.shape[-1] != self.image_size or pixels.shape[-2] != self.image_size:
            size = (self.image_size, self.image_size)
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.normalise(pixels)


def preprocessing_of(processor: Any, image_size: int) -> Preprocessing:
    """Preprocessing by the mean and deviation of a transformers processor (or of its image processor)."""
    image_processor = getattr(processor, "image_processor", processor)
    return Preprocessing(image_size, tuple(image_processor.image_mean), tuple(image_processor.image_std))
