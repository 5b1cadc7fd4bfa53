"""Which point to take under given limits. Validation alone chooses; test is reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from upop_ray.reporting.candidates import Candidate, smallest
from upop_ray.reporting.latencies import Latencies, latency_of


@dataclass(frozen=True)
class Limits:
    """What a model may cost.

    :param drop: points of the headline metric below the dense model, on validation, as a mean over seeds
    :param latency: median milliseconds, of the point that is taken
    """

    drop: float | None = None
    parameters: float | None = None
    macs: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Recommendation:
    """What was chosen.

    :param chosen: None where nothing is within the limits
    :param nearest: then what misses them by least
    :param within: how many are
    """

    chosen: Candidate | None
    nearest: Candidate | None
    within: int
    rule: str


def recommend(offers: Sequence[Candidate], limits: Limits, latency: Latencies) -> Recommendation:
    """Under a limit of the drop the smallest model, otherwise the best on validation.

    :param offers: of one measure, at least one
    :param latency: with a limit of it, what was not measured is left out
    """
    measured = [offer for offer in offers if limits.latency is None or latency_of(offer, latency) is not None]
    costs = costs_of(limits, latency)
    within = [offer for offer in measured if all(cost(offer) <= limit for cost, limit in costs.values())]
    if not within:
        return Recommendation(None, _nearest(measured, costs), 0, "")
    if limits.drop is not None:
        return Recommendation(smallest(within), None, len(within), "the smallest")
    chosen = max(within, key=lambda offer: (offer.score("validation")[0], -offer.size("parameters")))
    return Recommendation(chosen, None, len(within), "the best mean on validation")


Costs = Mapping[str, tuple[Callable[[Candidate], float], float]]


def costs_of(limits: Limits, latency: Latencies) -> Costs:
    """Name -> (what a candidate costs, at most so much), of the limits that are set."""
    # the drop is that of the method, so it is the mean of its seeds; size and time are those of the model that is taken
    every = {
        "drop": (lambda offer: offer.drop[0], limits.drop),
        "parameters": (lambda offer: offer.taken_size("parameters"), limits.parameters),
        "MACs": (lambda offer: offer.taken_size("macs"), limits.macs),
        "milliseconds": (lambda offer: _measured(offer, latency), limits.latency),
    }
    return {name: (cost, limit) for name, (cost, limit) in every.items() if limit is not None}


def _measured(offer: Candidate, latency: Latencies) -> float:
    found = latency_of(offer, latency)
    assert found is not None
    return found


def _nearest(offers: Sequence[Candidate], costs: Costs) -> Candidate | None:
    """The one whose largest miss is least, where a miss counts in the range of what all of them cost."""
    ranges = {
        name: max(map(cost, offers)) - min(map(cost, offers)) or 1.0 for name, (cost, _) in costs.items() if offers
    }

    def miss(offer: Candidate) -> float:
        return max((cost(offer) - limit) / ranges[name] for name, (cost, limit) in costs.items())

    return min(offers, key=lambda offer: (round(miss(offer), 6), offer.drop[0]), default=None)
