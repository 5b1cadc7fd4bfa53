"""RandAugment of photographs (Cubuk et al., 2020) on Pillow: with the operations and scales of timm, or of BLIP.

timm is no requirement: it needs torchvision, whose wheels on PyPI load beside a CUDA build of torch only. The
RandAugment of kornia picks one pair of operations for a whole batch, and knows neither noise of the magnitude nor the
increasing scales, so that it cannot express the published recipes. BLIP's own operations need OpenCV, and say
themselves which of Pillow's they equal (salesforce/BLIP, transform/randaugment.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from upop_ray.errors import ConfigError

Colour = tuple[int, ...]
#: (image, strength in [-1, 1], colour of what comes in from outside) -> changed image of the same size; operations
#: without a direction take the absolute strength
Operation = Callable[[Image.Image, float, Colour], Image.Image]

MAX_MAGNITUDE = 10.0
_MAX_ROTATION = 30.0  # degrees
_MAX_SHEAR = 0.3
_MAX_SHIFT = 0.45  # of the side
_MAX_ENHANCEMENT = 0.9
_MIN_FACTOR = 0.1
_MAX_ADDED = 110
_SOLARIZED_BELOW = 128
_POSTERIZED_BITS = 4

_BLIP_SHIFT = 10.0  # pixels, whatever the size
_BLIP_FACTORS = (0.1, 1.8)  # at no strength, and what full strength adds

# n is whole, inc is 1
_SECTION = r"(m|mstd|p|n(?=[0-9]+$)|inc(?=1$))([0-9]+(?:\.[0-9]+)?)"
_CURE = "use timm's notation of m, n, p, mstd and inc1, for instance rand-m9-mstd0.5-inc1, or '' for none"


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=fill
    )


def _rotate(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    return image.rotate(strength * _MAX_ROTATION, resample=Image.Resampling.BICUBIC, fillcolor=fill)


def _posterize(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    kept = _POSTERIZED_BITS - int(abs(strength) * _POSTERIZED_BITS)
    # not ImageOps.posterize, which refuses the 0 bits, all black, of full strength
    mask = 256 - 2 ** (8 - kept)
    return image.point([value & mask for value in range(256)] * len(image.getbands()))


def _solarize(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(abs(strength) * 256))


def _solarize_add(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    added = int(abs(strength) * _MAX_ADDED)
    table = [value + added if value < _SOLARIZED_BELOW else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _factor(strength: float) -> float:
    return max(_MIN_FACTOR, 1 + strength * _MAX_ENHANCEMENT)


OPERATIONS: Mapping[str, Operation] = {
    "auto_contrast": lambda image, strength, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, fill: ImageOps.equalize(image),
    "invert": lambda image, strength, fill: ImageOps.invert(image),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "colour": lambda image, strength, fill: ImageEnhance.Color(image).enhance(_factor(strength)),
    "contrast": lambda image, strength, fill: ImageEnhance.Contrast(image).enhance(_factor(strength)),
    "brightness": lambda image, strength, fill: ImageEnhance.Brightness(image).enhance(_factor(strength)),
    "sharpness": lambda image, strength, fill: ImageEnhance.Sharpness(image).enhance(_factor(strength)),
    "shear_x": lambda image, strength, fill: _affine(image, (1, strength * _MAX_SHEAR, 0, 0, 1, 0), fill),
    "shear_y": lambda image, strength, fill: _affine(image, (1, 0, 0, strength * _MAX_SHEAR, 1, 0), fill),
    "shift_x": lambda image, strength, fill: _affine(image, (1, 0, strength * _MAX_SHIFT * image.width, 0, 1, 0), fill),
    "shift_y": lambda image, strength, fill: _affine(
        image, (1, 0, 0, 0, 1, strength * _MAX_SHIFT * image.height), fill
    ),
}


def _blip_affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


def _blip_shear_x(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    # OpenCV maps forwards, and its first row is row 0; Pillow maps backwards, and its first row is row 0.5
    shear = strength * _MAX_SHEAR
    return _blip_affine(image, (1, -shear, shear / 2, 0, 1, 0), fill)


def _blip_shear_y(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    shear = strength * _MAX_SHEAR
    return _blip_affine(image, (1, 0, 0, -shear, 1, shear / 2), fill)


def _blip_rotate(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    # OpenCV's centre of (W/2, H/2) is half a pixel further than Pillow's
    centre = ((image.width + 1) / 2, (image.height + 1) / 2)
    return image.rotate(strength * _MAX_ROTATION, Image.Resampling.BILINEAR, center=centre, fillcolor=fill)


def _blip_factor(strength: float) -> float:
    lowest, added = _BLIP_FACTORS
    return lowest + abs(strength) * added


#: BLIP's list; at its magnitude of 5 the factor of brightness and sharpness is 1, which changes nothing (as published)
BLIP_OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda image, strength, fill: image,
    "auto_contrast": OPERATIONS["auto_contrast"],
    "brightness": lambda image, strength, fill: ImageEnhance.Brightness(image).enhance(_blip_factor(strength)),
    "sharpness": lambda image, strength, fill: ImageEnhance.Sharpness(image).enhance(_blip_factor(strength)),
    "equalize": OPERATIONS["equalize"],
    "shear_x": _blip_shear_x,
    "shear_y": _blip_shear_y,
    "shift_x": lambda image, strength, fill: _blip_affine(image, (1, 0, strength * _BLIP_SHIFT, 0, 1, 0), fill),
    "shift_y": lambda image, strength, fill: _blip_affine(image, (1, 0, 0, 0, 1, strength * _BLIP_SHIFT), fill),
    "rotate": _blip_rotate,
}
_OPERATIONS: Mapping[str, Mapping[str, Operation]] = {"timm": OPERATIONS, "blip": BLIP_OPERATIONS}


@dataclass(frozen=True)
class RandAugment:
    """A few operations drawn for each image, with replacement.

    :param operations: whose operations and scales
    :param magnitude: mean strength, from 0 to 10
    :param deviation: of the normal distribution of the strength, which is held to its bounds
    :param layers: operations drawn for an image
    :param probability: that a drawn operation is applied
    """

    magnitude: float = MAX_MAGNITUDE
    deviation: float = 0.0
    layers: int = 2
    probability: float = 0.5
    operations: Literal["timm", "blip"] = "timm"

    def __call__(self, image: Image.Image, draws: np.random.Generator, fill: Colour) -> Image.Image:
        """Return the RGB image changed.

        :param fill: colour of what comes in from outside
        """
        operations = list(_OPERATIONS[self.operations].values())
        for number in draws.integers(len(operations), size=self.layers):
            if draws.random() < self.probability:
                magnitude = np.clip(draws.normal(self.magnitude, self.deviation), 0, MAX_MAGNITUDE)
                direction = draws.choice((-1, 1))
                image = operations[number](image, float(direction * magnitude / MAX_MAGNITUDE), fill)
        return image


def parse_rand_augment(notation: str) -> RandAugment | None:
    """Read timm's notation: magnitude m, operations n, probability p, deviation mstd; None for an empty string.

    :raises ConfigError: another notation, or one that asks for other operations than those of ``inc1``
    """
    if not notation:
        return None
    name, *sections = notation.split("-")
    found = [re.fullmatch(_SECTION, section) for section in sections]
    values = {match[1]: float(match[2]) for match in found if match}
    if name != "rand" or len(values) < len(sections) or "inc" not in values:
        raise ConfigError("task.rand_augment", f"cannot be read, got {notation!r}", _CURE)
    if values.get("m", 0) > MAX_MAGNITUDE or values.get("p", 0) > 1:
        raise ConfigError("task.rand_augment", f"m is at most 10 and p at most 1, got {notation!r}", _CURE)
    names = {"m": "magnitude", "mstd": "deviation", "p": "probability"}
    settings: dict[str, Any] = {names[key]: value for key, value in values.items() if key in names}
    return RandAugment(layers=int(values.get("n", RandAugment.layers)), **settings)
