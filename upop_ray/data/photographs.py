"""Photographs as models see them in training and evaluation (the recipe of DeiT, Touvron et al., 2021)."""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_CROP_AREA = (0.08, 1.0)  # of the photograph
_CROP_ASPECT = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 1 / 3)  # of the image
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10
# the shorter side before the centre is cropped, over the side of the crop
_MARGIN = (256, 224)


def random_crop(image: Image.Image, size: int, draws: np.random.Generator) -> Image.Image:
    """Return a random part of a photograph, of 0.08 to 1 of its area, resized to a square of ``size`` pixels."""
    for _ in range(_ATTEMPTS):
        width, height = _extent(image.width * image.height, _CROP_AREA, _CROP_ASPECT, draws)
        if 0 < width <= image.width and 0 < height <= image.height:
            left, top = (int(draws.integers(room + 1)) for room in (image.width - width, image.height - height))
            break
    else:
        # a photograph so long that no part of it fits: the middle, as far as the aspect allows
        width = min(image.width, round(image.height * _CROP_ASPECT[1]))
        height = min(image.height, round(image.width / _CROP_ASPECT[0]))
        left, top = (image.width - width) // 2, (image.height - height) // 2
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size, size), Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle of a photograph whose shorter side was resized to 256/224 of ``size``."""
    shorter = size * _MARGIN[0] // _MARGIN[1]
    width, height = (shorter * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def as_pixels(image: Image.Image) -> Tensor:
    """Return an RGB image in [0, 1], float32 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def erased(pixels: Tensor, probability: float, draws: np.random.Generator) -> Tensor:
    """Return a normalised image (3, H, W) in which, with this probability, a random box is standard normal noise.

    Zhong et al., 2020, with noise for each pixel.
    """
    if draws.random() >= probability:
        return pixels
    height, width = pixels.shape[1:]
    for _ in range(_ATTEMPTS):
        tall, wide = _extent(height * width, _ERASED_AREA, _ERASED_ASPECT, draws)
        if tall < height and wide < width:
            top, left = draws.integers(height - tall + 1), draws.integers(width - wide + 1)
            noise = draws.standard_normal((3, tall, wide), dtype=np.float32)
            pixels = pixels.clone()
            pixels[:, top : top + tall, left : left + wide] = torch.from_numpy(noise)
            break
    return pixels


def _extent(
    area: int, shares: tuple[float, float], aspects: tuple[float, float], draws: np.random.Generator
) -> tuple[int, int]:
    """Two sides of a box: a uniform share of the area, and a ratio of the first to the second uniform in logarithm."""
    target = area * draws.uniform(*shares)
    aspect = math.exp(draws.uniform(math.log(aspects[0]), math.log(aspects[1])))
    return round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
