"""What a sweep found, in sentences and small tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from upop_ray.reporting.candidates import Candidate, candidates
from upop_ray.reporting.recommend import Limits, recommend
from upop_ray.reporting.sweeps import SweepResults, quantity

#: drops below the dense model, in points of the headline metric, for which the smallest model is named
DROPS = (0.5, 1.0, 2.0, 5.0)
#: the drop of the first sentence
_DROP = 1.0


@dataclass(frozen=True)
class Facts:
    """What one sweep comes to.

    :param headline: a sentence or two
    :param more: what to know beside it
    """

    sweep: str
    headline: str
    more: str


def facts_of(sweep: SweepResults) -> Facts:
    """What a sweep comes to."""
    offers = candidates(sweep)
    first, headline = offers[0], sweep.measure[0]
    dense = (
        f"The dense model has {headline} {first.dense('test'):.2f} on test ({first.dense('validation'):.2f} on "
        f"validation) with {quantity(first.dense_size('parameters'))} parameters and "
        f"{quantity(first.dense_size('macs'))} MACs."
    )
    counted = f"{len(sweep.finished)} of {len(sweep.rows)} points are finished."
    return Facts(sweep.name, f"{_smallest(offers)} {dense}", " ".join([_winners(offers), counted, *_doubts(offers)]))


def title_of(offer: Candidate) -> str:
    """A candidate in a sentence."""
    return f"{offer.method} at ratio {offer.ratio:g}"


def with_spread(mean: float, deviation: float, count: int) -> str:
    """A mean, with its deviation where there is one."""
    return f"{mean:.2f} ± {deviation:.2f}" if count > 1 else f"{mean:.2f}"


def _smallest(offers: Sequence[Candidate]) -> str:
    found = recommend(offers, Limits(drop=_DROP), {})
    offer = found.chosen or found.nearest
    assert offer is not None
    test = f"test {offer.score('test')[0]:.2f} ({offer.score('test')[0] - offer.dense('test'):+.2f})"
    if found.chosen is None:
        return (
            f"No point stays within {_DROP:g} point of the dense model on validation; nearest is {title_of(offer)}, "
            f"{offer.drop[0]:.2f} below, {test}, with {offer.removed('parameters'):.0%} of the parameters gone."
        )
    return (
        f"The smallest model within {_DROP:g} point of the dense one on validation is {title_of(offer)}: "
        f"{offer.removed('parameters'):.0%} of the parameters and {offer.removed('macs'):.0%} of the MACs "
        f"are gone, {test}."
    )


def _winners(offers: Sequence[Candidate]) -> str:
    """The method that is best on validation, by ratio."""
    best: dict[float, Candidate] = {}
    for offer in offers:
        if offer.ratio not in best or offer.score("validation") > best[offer.ratio].score("validation"):
            best[offer.ratio] = offer
    named = [
        f"{ratio:g}: {offer.method} ({offer.score('validation')[0]:.2f}, test {offer.score('test')[0]:.2f})"
        for ratio, offer in sorted(best.items())
    ]
    return f"Best on validation by ratio: {'; '.join(named)}."


def _doubts(offers: Sequence[Candidate]) -> list[str]:
    fewest = min(len(offer.rows) for offer in offers)
    if fewest > 1:
        return []
    return ["Some of it rests on one seed, so its spread is not known; sweep.seeds=[0,1,2] tells it."]
