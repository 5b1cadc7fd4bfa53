"""What a sweep offers: a method at a ratio, over all its seeds; which offers no other beats, and where curves bend."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from upop_ray.reporting.points import PointRow, best_draws, spread
from upop_ray.reporting.sweeps import SweepResults

#: points besides the dense model from which a knee can be told
KNEE_POINTS = 4
#: sizes that differ by less are one size: a budget may be missed by half a percent
SAME_SIZE = 1.005


@dataclass(frozen=True)
class Candidate:
    """A method at a ratio of a sweep.

    :param rows: of each seed the finished draw that is best on validation
    """

    sweep: str
    method: str
    ratio: float
    rows: Sequence[PointRow]

    @cached_property
    def drop(self) -> tuple[float, float]:
        """Mean and deviation over seeds of what is lost on validation, in points of the headline metric."""
        return spread([row.dense_metric("validation") - row.metric("validation") for row in self.rows])

    def score(self, split: str) -> tuple[float, float]:
        """Mean and deviation over seeds of the headline metric."""
        return spread([row.metric(split) for row in self.rows])

    def dense(self, split: str) -> float:
        """The dense model's headline metric."""
        return spread([row.dense_metric(split) for row in self.rows])[0]

    def size(self, name: str) -> float:
        """Mean ``parameters`` or ``macs`` over seeds."""
        return spread([float(row.manifest[name]) for row in self.rows if row.manifest])[0]

    def dense_size(self, name: str) -> float:
        """The dense model's."""
        return spread([float(row.manifest["dense"][name]) for row in self.rows if row.manifest])[0]

    def removed(self, name: str) -> float:
        """Share of the whole model's ``parameters`` or ``macs`` that is gone."""
        return 1 - self.size(name) / self.dense_size(name)

    @property
    def taken(self) -> PointRow:
        """The point of the seed that is best on validation: of the models of this kind the one to use."""
        return max(self.rows, key=lambda row: row.metric("validation"))

    def taken_size(self, name: str) -> float:
        """``parameters`` or ``macs`` of the taken one."""
        manifest = self.taken.manifest
        assert manifest is not None
        return float(manifest[name])


def candidates(sweep: SweepResults) -> list[Candidate]:
    """Of each method and ratio one, by method and ratio."""
    groups: dict[tuple[str, float], list[PointRow]] = {}
    for row in sorted(best_draws(sweep.rows), key=lambda row: (row.method, row.ratio, row.seed)):
        groups.setdefault((row.method, row.ratio), []).append(row)
    return [Candidate(sweep.name, method, ratio, rows) for (method, ratio), rows in groups.items()]


def frontier(offers: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats: none has as few parameters and a higher mean on validation; smallest first."""

    places = [(offer.size("parameters"), offer.score("validation")[0]) for offer in offers]

    def beaten(size: float, score: float) -> bool:
        return any(other <= size * SAME_SIZE and better > score for other, better in places)

    best = [(place[0], offer) for place, offer in zip(places, offers, strict=True) if not beaten(*place)]
    return [offer for _, offer in sorted(best, key=lambda pair: pair[0])]


def smallest(offers: Sequence[Candidate]) -> Candidate:
    """The one with the fewest parameters; of several of that size the best on validation."""
    size = min(offer.size("parameters") for offer in offers)
    same = [offer for offer in offers if offer.size("parameters") <= size * SAME_SIZE]
    return max(same, key=lambda offer: offer.score("validation")[0])


@dataclass(frozen=True)
class Knee:
    """Where a curve bends, or why that cannot be told."""

    sweep: str
    method: str
    at: Candidate | None
    reason: str


def knees(offers: Sequence[Candidate]) -> list[Knee]:
    """The knee of each curve; what a curve is: the offers of one sweep and method."""
    curves: dict[tuple[str, str], list[Candidate]] = {}
    for offer in offers:
        curves.setdefault((offer.sweep, offer.method), []).append(offer)
    return [knee(curve) for curve in curves.values()]


def knee(curve: Sequence[Candidate]) -> Knee:
    """The last point before the metric falls faster than the model shrinks.

    By the rule of Kneedle (Satopaa et al., 2011) with sensitivity 1, without its smoothing, which is for hundreds of
    points: with both axes scaled to [0, 1], the point highest above the falling diagonal, if it is higher than the
    points are apart on average. The curve is mean validation against the share of parameters removed, from the dense
    model on.
    """
    first = curve[0]
    if len(curve) < KNEE_POINTS:
        reason = f"a knee needs {KNEE_POINTS} ratios, there {'is' if len(curve) == 1 else 'are'} {len(curve)}"
        return Knee(first.sweep, first.method, None, reason)
    ordered = sorted(curve, key=lambda offer: offer.removed("parameters"))
    removed = _scaled([0.0, *(offer.removed("parameters") for offer in ordered)])
    scores = _scaled([first.dense("validation"), *(offer.score("validation")[0] for offer in ordered)])
    heights = [score - (1 - share) for score, share in zip(scores[1:], removed[1:], strict=True)]
    if max(heights) <= 1 / len(ordered):
        return Knee(first.sweep, first.method, None, "the curve bends nowhere: it falls evenly, or steepest at first")
    at = ordered[heights.index(max(heights))]
    return Knee(first.sweep, first.method, at, f"up to {at.removed('parameters'):.0%} removed, then it falls faster")


def _scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / ((high - low) or 1.0) for value in values]
