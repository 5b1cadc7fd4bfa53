"""Which colour a drawing mostly is: measured from its pixels by thresholds, not annotated.

White paper cannot be told from a white that the artist drew, so only off-white ink counts as white.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black", "white")
#: the main colour covers at least this share of the ink
DOMINANT = 0.5
#: a drawing is clearly not of a colour that covers at most this share of its ink
MINOR = 0.2

# of 255: what is brighter in all channels is paper
_PAPER = 250
# value, saturation and their product (chroma), from 0 to 1
_BLACK_BELOW, _BROWN_BELOW, _WHITE_ABOVE, _PALE_ABOVE = 0.28, 0.8, 0.88, 0.85
_GREY_SATURATION, _COOL_GREY_CHROMA, _PALE_SATURATION = 0.14, 0.16, 0.55
# hue in degrees where a name begins
_HUES = {"red": 0, "orange": 14, "yellow": 36, "green": 68, "blue": 175, "purple": 255, "pink": 295}
_RED_AGAIN = 345
_BROWN_FROM, _BROWN_TO = 10, 40


def shares(images: Sequence[bytes]) -> NDArray[np.float64]:
    """Return the share of each of `COLOURS` in the ink of each image, (images, colours); zeros where nothing is drawn.

    :param images: PNG files with a palette
    """
    opened = [Image.open(io.BytesIO(content)) for content in images]
    palettes = [image.getpalette() or [] for image in opened]
    size = max(map(len, palettes), default=0) // 3
    counts = np.array([image.histogram()[:size] for image in opened], dtype=np.float64)
    rgb = np.array([palette + [0] * (3 * size - len(palette)) for palette in palettes], np.uint8)
    rgb = rgb.reshape(len(opened), size, 3)
    counts[(rgb >= _PAPER).all(-1)] = 0
    names = name(rgb)
    ink = np.stack([(counts * (names == colour)).sum(1) for colour in range(len(COLOURS))], 1)
    of_all: NDArray[np.float64] = ink / np.maximum(ink.sum(1, keepdims=True), 1)
    return of_all


def main_colours(measured: NDArray[np.float64]) -> list[str | None]:
    """Return the colour that dominates each drawing, if one does.

    :param measured: (drawings, colours), see :func:`shares`
    """
    best, share = measured.argmax(1).tolist(), measured.max(1).tolist()
    return [COLOURS[colour] if part >= DOMINANT else None for colour, part in zip(best, share, strict=True)]


def name(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the place in `COLOURS` of each colour.

    :param rgb: (..., 3)
    """
    values = rgb / 255
    value = values.max(-1)
    chroma = value - values.min(-1)
    saturation, hue = chroma / np.maximum(value, 1e-9), _hue(values, value, chroma)
    colourless = (saturation < _GREY_SATURATION) | ((chroma < _COOL_GREY_CHROMA) & (hue >= _HUES["blue"]))
    reddish = (hue >= _RED_AGAIN) | (hue < _HUES["orange"])
    # the first that holds
    rules = {
        "black": value < _BLACK_BELOW,
        "white": colourless & (value > _WHITE_ABOVE),
        "grey": colourless,
        "brown": (hue >= _BROWN_FROM) & (hue < _BROWN_TO) & (value < _BROWN_BELOW),
        "pink": reddish & (value > _PALE_ABOVE) & (saturation < _PALE_SATURATION),
        "red": reddish,
    }
    of_hue = np.array([COLOURS.index(label) for label in _HUES])
    by_hue = of_hue[np.searchsorted(list(_HUES.values()), hue, side="right") - 1]
    chosen: NDArray[np.int64] = np.select(list(rules.values()), [COLOURS.index(label) for label in rules], by_hue)
    return chosen


def _hue(values: NDArray[np.float64], value: NDArray[np.float64], chroma: NDArray[np.float64]) -> NDArray[np.float64]:
    red, green, blue = (values[..., channel] for channel in range(3))
    safe = np.maximum(chroma, 1e-9)
    of_red, of_green, of_blue = (green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4
    degrees: NDArray[np.float64] = (
        np.where(value == red, of_red, np.where(value == green, of_green, of_blue)) * 60 % 360
    )
    return degrees
