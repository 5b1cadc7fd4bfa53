"""Charts of what drawn settings did."""

from collections.abc import Mapping, Sequence

from upop_ray.reporting.charting import Chart, Record, Spec, colours, points, score_axis, shapes, tooltip

#: by the rule of a setting
_KINDS: dict[str, Spec] = {
    "uniform": {"type": "quantitative", "scale": {"zero": False}},
    "log_uniform": {"type": "quantitative", "scale": {"type": "log"}},
    "choice": {"type": "ordinal", "axis": {"labelAngle": 0}},
}


def importance_chart(shares: Mapping[str, Mapping[str, float]]) -> Chart:
    """Importances of drawn settings.

    :param shares: method -> setting -> share
    """
    records = [
        {"method": method, "setting": setting, "importance": value}
        for method, own in shares.items()
        for setting, value in own.items()
    ]
    encoding = {
        "x": {"field": "importance", "type": "quantitative", "axis": {"format": ".0%"}},
        "y": {"field": "setting", "type": "nominal", "sort": "-x", "title": None},
        "yOffset": {"field": "method"},
        "color": colours(sorted(shares), "method"),
        "tooltip": tooltip(("setting", "setting", ""), ("method", "method", ""), ("importance", "share", ".1%")),
    }
    spec = {"data": {"values": records}, "mark": "bar", "encoding": encoding, "height": 20 * len(records) + 20}
    return Chart("importances", "share of each drawn setting in what the draws of a method differ by", spec)


def slice_chart(setting: str, draws: Sequence[Record], rule: str, headline: str) -> Chart:
    """Validation of every draw against one setting.

    :param draws: ``value``, ``score``, ``ratio``, ``method``, ``seed``
    :param rule: how the setting was drawn
    """
    ratios, methods = (sorted({draw[name] for draw in draws}) for name in ("ratio", "method"))
    fields = tooltip(
        ("value", setting, ""), ("score", headline, ".2f"), ("method", "method", ""), ("ratio", "ratio", "")
    )
    encoding = {
        "x": {"field": "value", "title": setting, **_KINDS[rule]},
        "y": score_axis("score", f"validation {headline}"),
        "color": {**colours(ratios, "ratio"), "title": "ratio"},
        "shape": shapes(methods, "method"),
        "tooltip": [*fields, *tooltip(("seed", "seed", ""))],
    }
    spec = {"data": {"values": list(draws)}, "mark": points(60), "encoding": encoding, "height": 240}
    return Chart(f"draws-{setting}", f"validation {headline} by {setting}", spec)
