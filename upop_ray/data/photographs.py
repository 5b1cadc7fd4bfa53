"""Parts of photographs, and their sizes, as models see them in training and evaluation."""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_CROP_ASPECT = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 1 / 3)  # of the image
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10
_LONGEST = 4  # sides of the crop, in segmentation
# the shorter side before the centre is cropped, over the side of the crop
_MARGIN = (256, 224)


def random_crop(image: Image.Image, size: int, area: tuple[float, float], draws: np.random.Generator) -> Image.Image:
    """Return a random part of a photograph, resized to a square of ``size`` pixels.

    The RandomResizedCrop of torchvision with bicubic resizing.

    :param area: smallest and largest share of the photograph
    """
    for _ in range(_ATTEMPTS):
        width, height = _extent(image.width * image.height, area, _CROP_ASPECT, draws)
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
    """Return the middle of a photograph whose shorter side was resized to 256/224 of ``size``, as for DeiT."""
    shorter = size * _MARGIN[0] // _MARGIN[1]
    width, height = (shorter * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def squared(image: Image.Image, size: int) -> Image.Image:
    """Return a whole photograph resized to a square of ``size`` pixels, whatever its aspect."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the height and width at which the shorter side is ``side``, or the longer one four times that if less.

    As mmsegmentation resizes for an image scale of, for instance, (2048, 512).
    """
    factor = min(_LONGEST * side / max(height, width), side / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def as_pixels(image: Image.Image) -> Tensor:
    """Return an RGB image in [0, 1], float32 (3, H, W)."""
    # put in order while it is small: what follows is twice as fast
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


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
