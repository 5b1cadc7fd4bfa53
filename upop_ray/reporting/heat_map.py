"""The share of each layer that is kept, as a picture: a line for each kind of layer, a cell for each layer."""

from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from upop_ray.reporting.allocation import placed

_CELL, _LINE, _MARGIN = 24, 22, 6
#: as TensorBoard shows pictures, which it scales coarsely
_WIDTH = 350
#: dark is little; of the viridis map, whose lightness grows evenly
_COLOURS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_INK, _PAPER, _GRID = (32, 33, 36), (255, 255, 255), (218, 220, 224)


def heat_map(title: str, kept: Mapping[str, float]) -> Image.Image:
    """Draw the shares that sites keep, in percent.

    Pillow draws it in milliseconds and is there anyway; this runs in the process that looks after a point.

    :param kept: site -> share of its units, in [0, 1]
    """
    lines = _lines(kept)
    font = ImageFont.load_default(12)
    layers = 1 + max((layer for line in lines.values() for layer in line), default=0)
    left = _MARGIN + round(max(font.getlength(name) for name in (*lines, "layer"))) + _MARGIN
    width = max(_WIDTH, left + layers * _CELL + _MARGIN, round(font.getlength(title)) + 2 * _MARGIN)
    picture = Image.new("RGB", (width, _MARGIN + _LINE * (len(lines) + 2) + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_MARGIN, _MARGIN + _LINE * 0.5), title, _INK, font, anchor="lm")
    for layer in range(layers):
        pen.text((left + _CELL * (layer + 0.5), _MARGIN + _LINE * 1.5), str(layer), _INK, font, anchor="mm")
    pen.text((_MARGIN, _MARGIN + _LINE * 1.5), "layer", _INK, font, anchor="lm")
    for number, (name, line) in enumerate(lines.items(), start=2):
        top = _MARGIN + _LINE * number
        pen.text((_MARGIN, top + _LINE / 2), name, _INK, font, anchor="lm")
        for layer, share in line.items():
            _cell(pen, (left + _CELL * layer, top), share, font)
    return picture


def _lines(kept: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Line -> layer -> share."""
    lines: dict[str, dict[int, float]] = {}
    for site, share in kept.items():
        line, layer = placed(site)
        lines.setdefault(line, {})[layer] = share
    return dict(sorted(lines.items()))


def _cell(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], share: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    colour = _colour(share)
    x, y = at
    pen.rectangle((x, y, x + _CELL - 2, y + _LINE - 2), fill=colour, outline=_GRID)
    # luminance of Rec. 709: dark letters on light cells
    light = sum(part * weight for part, weight in zip(colour, (0.2126, 0.7152, 0.0722), strict=True)) > 130
    ink = _INK if light else _PAPER
    pen.text((x + _CELL / 2 - 1, y + _LINE / 2 - 1), f"{100 * share:.0f}", ink, font, anchor="mm")


def _colour(share: float) -> tuple[int, int, int]:
    position = min(max(share, 0.0), 1.0) * (len(_COLOURS) - 1)
    first = min(int(position), len(_COLOURS) - 2)
    near, far = _COLOURS[first], _COLOURS[first + 1]
    red, green, blue = (round(a + (b - a) * (position - first)) for a, b in zip(near, far, strict=True))
    return red, green, blue
