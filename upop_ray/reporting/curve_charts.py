"""Charts of what a model is worth at its size: curves, and the frontier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upop_ray.reporting.candidates import Candidate
from upop_ray.reporting.charting import GREY, Chart, Record, Spec, colours, points, score_axis, shapes, tooltip

SIZES = {"parameters": "parameters", "macs": "MACs"}
_POINT = 70
_DASHES = [5, 4]
_TOOLTIP = tooltip(
    ("series", "curve", ""),
    ("ratio", "ratio asked", ""),
    ("removed", "removed", ".1%"),
    ("shown", "score", ""),
    ("dense", "dense", ".2f"),
    ("seeds", "seeds", ""),
    ("size", "size", ""),
)


@dataclass(frozen=True)
class Subject:
    """What curves of one measure have in common.

    :param names: name of the curve of each (sweep, method)
    :param published: size -> reference points: ``ratio``, ``removed``, ``score``, ``source``
    """

    headline: str
    names: Mapping[tuple[str, str], str]
    published: Mapping[str, Sequence[Record]]

    def series(self, offer: Candidate) -> str:
        """The name of the curve that a candidate is on."""
        return self.names[offer.sweep, offer.method]


def curve_chart(offers: Sequence[Candidate], split: str, size: str, subject: Subject) -> Chart:
    """The headline metric against the share of ``parameters`` or ``macs`` that is gone, one line a series.

    Lines begin at the dense model; bands and bars are a deviation over seeds to each side.
    """
    starts = {subject.series(offer): offer for offer in offers}
    names = sorted(starts)
    reached = [_record(offer, split, size, subject) for offer in offers]
    lines = [*(_dense_record(name, offer, split) for name, offer in starts.items()), *reached]
    dense = [{"score": score} for score in sorted({offer.dense(split) for offer in offers})]
    place = {"x": _removed_axis(size), "y": score_axis("score", f"{split} {subject.headline}")}
    spread = {"x": place["x"], "y": {**place["y"], "field": "low"}, "y2": {"field": "high"}, "color": colours(names)}
    mark = {**place, "color": colours(names), "shape": shapes(names), "tooltip": _TOOLTIP}
    layers: list[Spec] = [
        {
            "data": {"values": dense},
            "mark": _still("rule", strokeDash=_DASHES, color=GREY),
            "encoding": {"y": place["y"]},
        },
        {"mark": _still("area", opacity=0.18), "encoding": spread},
        {"mark": _still("line"), "encoding": {**place, "color": colours(names)}},
        {"data": {"values": reached}, "mark": _still("rule"), "encoding": spread},
        {"data": {"values": reached}, "mark": points(_POINT), "encoding": mark},
    ]
    if split == "test" and subject.published.get(size):
        layers.append(_published_layer(subject.published[size], place))
    title = f"{split} {subject.headline} by {SIZES[size]} removed"
    return Chart(f"curve-{split}-by-{size}", title, {"data": {"values": lines}, "layer": layers, "height": 300})


def frontier_chart(
    offers: Sequence[Candidate], best: Sequence[Candidate], bends: Sequence[Candidate], subject: Subject
) -> Chart:
    """Validation against parameters of every candidate and the dense models.

    :param best: the frontier, through which a line goes
    :param bends: candidates at knees, which are named
    """
    names = sorted({subject.series(offer) for offer in offers})
    reached = [_sized(offer) | _record(offer, "validation", "parameters", subject) for offer in offers]
    dense = sorted({(offer.dense_size("parameters"), offer.dense("validation")) for offer in offers})
    size = {"field": "parameters", "type": "quantitative", "axis": {"format": "~s"}, "scale": {"zero": False}}
    place = {"x": size, "y": score_axis("score", f"validation {subject.headline}")}
    mark = {**place, "color": colours(names), "shape": shapes(names), "tooltip": _TOOLTIP}
    stars = {"type": "point", "shape": "cross", "filled": True, "size": 120, "color": GREY, "opacity": 1}
    layers: list[Spec] = [
        {
            "data": {"values": [_sized(offer) for offer in best]},
            "mark": _still("line", interpolate="step-after", color=GREY, strokeDash=_DASHES),
            "encoding": place,
        },
        {"data": {"values": reached}, "mark": points(_POINT), "encoding": mark},
        {
            "data": {"values": [{"parameters": count, "score": score, "name": "dense"} for count, score in dense]},
            "mark": stars,
            "encoding": {**place, "tooltip": tooltip(("name", "model", ""), ("score", "score", ".2f"))},
        },
    ]
    if bends:
        layers.append(_knees_layer(bends, place))
    title = f"validation {subject.headline} by parameters; the line is the frontier, the cross the dense model"
    return Chart("frontier", title, {"layer": layers, "height": 300})


def _knees_layer(bends: Sequence[Candidate], place: Spec) -> Spec:
    values = [_sized(offer) | {"text": "knee"} for offer in bends]
    mark = _still("text", dy=-13, fontWeight="bold")
    return {"data": {"values": values}, "mark": mark, "encoding": {**place, "text": {"field": "text"}}}


def _still(kind: str, **settings: object) -> Spec:
    """A mark without a tooltip."""
    return {"type": kind, "tooltip": None, **settings}


def _removed_axis(size: str) -> Spec:
    axis = {"format": ".0%"}
    title = f"{SIZES[size]} removed"
    return {"field": "removed", "type": "quantitative", "title": title, "axis": axis, "scale": {"domainMin": 0}}


def _record(offer: Candidate, split: str, size: str, subject: Subject) -> Record:
    mean, deviation = offer.score(split)
    return {
        "series": subject.series(offer),
        "ratio": offer.ratio,
        "removed": offer.removed(size),
        "score": mean,
        "low": mean - deviation,
        "high": mean + deviation,
        "shown": f"{mean:.2f} ± {deviation:.2f}" if len(offer.rows) > 1 else f"{mean:.2f}",
        "dense": offer.dense(split),
        "seeds": len(offer.rows),
        "size": f"{offer.size(size) / 1e6:.3f} M of {offer.dense_size(size) / 1e6:.3f} M {SIZES[size]}",
    }


def _sized(offer: Candidate) -> Record:
    return {"parameters": offer.size("parameters"), "score": offer.score("validation")[0]}


def _dense_record(name: str, offer: Candidate, split: str) -> Record:
    score = offer.dense(split)
    return {"series": name, "removed": 0.0, "score": score, "low": score, "high": score}


def _published_layer(published: Sequence[Record], place: Spec) -> Spec:
    fields = tooltip(("source", "published", ""), ("ratio", "ratio", ""), ("score", "score", ""))
    mark = {"type": "point", "shape": "diamond", "size": 110, "color": GREY, "strokeWidth": 2}
    return {"data": {"values": list(published)}, "mark": mark, "encoding": {**place, "tooltip": fields}}
