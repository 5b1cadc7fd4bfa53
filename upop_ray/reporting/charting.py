"""What charts share. A chart is a Vega-Lite specification: one gives the page's interactive chart, PNG and SVG."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
Record = dict[str, Any]
#: colours that people of any colour vision tell apart, on white and on black (after Okabe and Ito)
_COLOURS = ["#0a84d0", "#e07b00", "#00a077", "#d05fa0", "#56b4e9", "#d55e00", "#8f7ee6", "#999999"]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
#: seen in both themes
GREY = "#888888"
#: width of a chart in a file, in pixels at scale 1
_FILE_WIDTH = 560
_FILE_SCALE = 2


@dataclass(frozen=True)
class Chart:
    """One picture of a report.

    :param name: of its files
    :param title: what it shows, in words, also for those who do not see it
    :param spec: without width and colours of the theme
    :param interactive: readers choose what it shows, so there are no files of it
    """

    name: str
    title: str
    spec: Spec
    interactive: bool = False

    def files(self) -> dict[str, bytes]:
        """Name -> content of the same picture as PNG and SVG, on white, with its title."""
        import vl_convert

        if self.interactive:
            return {}
        config = {"background": "white", "legend": {"orient": "bottom", "columns": 4}, "view": {"stroke": None}}
        title = {"text": self.title, "fontSize": 13, "anchor": "start"}
        spec = {**self.spec, "width": _FILE_WIDTH, "title": title, "config": config}
        svg = vl_convert.vegalite_to_svg(spec)
        # names of drawn settings are in it, which may have slashes: search.floors.language/attention
        name = re.sub(r"[^\w.+=-]", "-", self.name)
        return {f"{name}.svg": svg.encode(), f"{name}.png": vl_convert.svg_to_png(svg, scale=_FILE_SCALE)}


def points(size: int) -> Spec:
    """The mark of points."""
    return {"type": "point", "filled": True, "size": size, "opacity": 1}


def score_axis(field: str, title: str) -> Spec:
    """The vertical channel of a metric, whose axis need not begin at 0."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, "nice": True}}


def colours(names: Sequence[Any], field: str = "series") -> Spec:
    """The channel of colours; the same names have the same colours in all charts."""
    scale = {"domain": list(names), "range": [_COLOURS[place % len(_COLOURS)] for place in range(len(names))]}
    # or symbols would be as faint as the bands
    legend = {"symbolOpacity": 1}
    return {"field": field, "type": "nominal", "title": None, "scale": scale, "legend": legend}


def shapes(names: Sequence[Any], field: str = "series") -> Spec:
    """The channel of shapes, likewise; with the same field its legend is that of the colours."""
    scale = {"domain": list(names), "range": [_SHAPES[place % len(_SHAPES)] for place in range(len(names))]}
    return {"field": field, "type": "nominal", "title": None, "scale": scale}


def tooltip(*fields: tuple[str, str, str]) -> list[Spec]:
    """The channel of tooltips.

    :param fields: (field, title, format), the format empty for text
    """
    return [
        {"field": field, "title": title, **({"format": pattern} if pattern else {})} for field, title, pattern in fields
    ]
