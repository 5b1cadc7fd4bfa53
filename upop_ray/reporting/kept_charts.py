"""Heat maps of what points keep."""

from collections.abc import Mapping, Sequence

from upop_ray.reporting.allocation import MOMENTS, SiteCourse
from upop_ray.reporting.charting import Chart, Record, Spec, tooltip

#: pixels that a number needs in its cell
_ROOM = 34
#: pixels of a line of cells
_LINE = 30


def share_chart(shares: Sequence[Record]) -> Chart:
    """What points keep of each tower and kind.

    :param shares: ``point``, ``group``, ``kept``, in order
    """
    names, groups = (list(dict.fromkeys(share[name] for share in shares)) for name in ("point", "group"))
    encoding = {
        "x": {
            "field": "point",
            "type": "nominal",
            "sort": names,
            "title": None,
            "axis": {"labelAngle": -40, "labelOverlap": True},
        },
        "y": {"field": "group", "type": "nominal", "sort": groups, "title": None},
    }
    fields = tooltip(("point", "point", ""), ("group", "of", ""), ("kept", "units kept", ".1%"))
    title = "share of the units that each tower and kind keeps"
    spec = _heat_map(encoding, "kept", fields, len(names))
    return Chart("kept-shares", title, {"data": {"values": list(shares)}, **spec})


def layers_chart(points: Mapping[str, Sequence[SiteCourse]]) -> Chart:
    """What a chosen point keeps of each layer, when a chosen part of the search is done.

    :param points: name of a point -> its sites
    """
    records = [
        {"point": point, "site": s.site, "group": s.group, "layer": s.layer, "units": s.units, "kept": list(s.kept)}
        for point, sites in points.items()
        for s in sites
    ]
    encoding = {
        "x": {"field": "layer", "type": "ordinal", "axis": {"labelAngle": 0}},
        "y": {
            "field": "group",
            "type": "nominal",
            "sort": list(dict.fromkeys(record["group"] for record in records)),
            "title": None,
        },
    }
    fields = tooltip(("site", "site", ""), ("now", "units kept", ""), ("units", "of", ""), ("share", "share", ".1%"))
    chosen = {
        "params": [_choice("point", list(points)), _slider("done", "search done, % ")],
        "transform": [
            {"filter": "datum.point === point"},
            {"calculate": f"datum.kept[round(done * {MOMENTS - 1} / 100)]", "as": "now"},
            {"calculate": "datum.now / datum.units", "as": "share"},
        ],
    }
    spec = {
        "data": {"values": records},
        **chosen,
        **_heat_map(encoding, "share", fields, 1 + max(site.layer for sites in points.values() for site in sites)),
    }
    title = "share of its units that each layer keeps, at any time of the search"
    return Chart("kept-layers", title, spec, interactive=True)


def _choice(name: str, options: Sequence[str]) -> Spec:
    bind = {"input": "select", "options": list(options), "name": f"{name} "}
    return {"name": name, "value": options[-1], "bind": bind}


def _slider(name: str, label: str) -> Spec:
    bind = {"input": "range", "min": 0, "max": 100, "step": 100 // (MOMENTS - 1), "name": label}
    return {"name": name, "value": 100, "bind": bind}


def _heat_map(encoding: Spec, field: str, fields: Sequence[Spec], columns: int) -> Spec:
    """Cells from dark (nothing kept) to light (all), with their numbers where there is room."""
    scale = {"domain": [0, 1], "scheme": "viridis"}
    legend = {"format": ".0%", "tickCount": 5}
    colour = {"field": field, "type": "quantitative", "scale": scale, "title": "kept", "legend": legend}
    numbers = {
        **encoding,
        "text": {"field": field, "type": "quantitative", "format": ".0%"},
        "color": {"condition": {"test": f"datum.{field} > 0.6", "value": "black"}, "value": "white"},
        "opacity": {"condition": {"test": f"width > {_ROOM * columns}", "value": 1}, "value": 0},
    }
    layers = [
        {"mark": "rect", "encoding": {**encoding, "color": colour, "tooltip": fields}},
        # the cell below has the tooltip
        {"mark": {"type": "text", "tooltip": None, "interactive": False}, "encoding": numbers},
    ]
    return {"layer": layers, "height": len(encoding["y"]["sort"]) * _LINE}
