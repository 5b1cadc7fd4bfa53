"""The answer to "which point should I take": named, with its reasons, its uncertainty and how to take it."""

from collections.abc import Sequence
from dataclasses import dataclass

from upop_ray.errors import StoreError
from upop_ray.reporting.candidates import Candidate, candidates
from upop_ray.reporting.facts import title_of, with_spread
from upop_ray.reporting.latencies import Latencies, latencies, latency_of
from upop_ray.reporting.recommend import Limits, Recommendation, costs_of, recommend
from upop_ray.reporting.sweeps import measures, quantity, read_sweeps
from upop_ray.reporting.taking import export_command, load_lines
from upop_ray.store import PointPaths, Store


def advise(store: Store, names: Sequence[str], limits: Limits) -> tuple[list[str], bool]:
    """Which point to take under limits, in lines, and whether there is one.

    :param names: of sweeps; none are all
    :raises StoreError: there is nothing to choose from, or sweeps measure different things
    """
    groups = measures(read_sweeps(store, names))
    if len(groups) > 1:
        told = "; ".join(
            f"{', '.join(sweep.name for sweep in members)}: {headline} on {data}"
            for (headline, data), members in groups.items()
        )
        raise StoreError(f"{store.uri}: its sweeps measure different things ({told}); name those of one")
    (headline, _), members = next(iter(groups.items()))
    others = sum(len(sweep.others) for sweep in members)
    offers = [offer for sweep in members for offer in candidates(sweep)]
    latency = latencies(store, offers) if limits.latency is not None else {}
    found = recommend(offers, limits, latency)
    answer = _Answer(store, headline, offers, limits, latency)
    lines = answer.none_within(found) if found.chosen is None else answer.taken(found.chosen, found)
    notes = [f"# {others} points were computed with other settings of the sweep, and left out"] if others else []
    return [*lines, *notes], found.chosen is not None


@dataclass(frozen=True)
class _Answer:
    """A recommendation in words; its parts are what was asked, of what."""

    store: Store
    headline: str
    offers: Sequence[Candidate]
    limits: Limits
    latency: Latencies

    def taken(self, offer: Candidate, found: Recommendation) -> list[str]:
        """What to take, why, and how."""
        asked, point = self._asked(), offer.taken
        why = f"{found.rule} of the {found.within} of {len(self.offers)} that have {asked}; each is a method at a ratio"
        return [
            f"take   {offer.sweep}: {title_of(offer)}, seed {point.seed}, {point.hash}",
            f"why    {why}",
            *self._facts(offer),
            *self._notes(offer),
            f"path   {self.store.path(PointPaths(point.hash).root)}",
            "",
            load_lines(self.store, point.hash),
            "",
            f"# {export_command(self.store, point.hash)}",
        ]

    def none_within(self, found: Recommendation) -> list[str]:
        """That there is none, and the nearest."""
        none = f"none of {len(self.offers)} has {self._asked()}; each is a method at a ratio"
        lines = [none, *self._unmeasured()]
        offer = found.nearest
        if offer is None:
            return lines
        missed = [
            f"{cost(offer) - limit:.2f} points more"
            if name == "drop"
            else f"{quantity(cost(offer) - limit)} {name} more"
            for name, (cost, limit) in costs_of(self.limits, self.latency).items()
            if cost(offer) > limit
        ]
        nearest = f"nearest is {title_of(offer)} of {offer.sweep}, {offer.taken.hash}, with {' and '.join(missed)}:"
        return [*lines, nearest, *self._facts(offer)]

    def _asked(self) -> str:
        return " and ".join(
            f"at most {limit:g} points less than dense" if name == "drop" else f"at most {quantity(limit)} {name}"
            for name, (_, limit) in costs_of(self.limits, self.latency).items()
        )

    def _facts(self, offer: Candidate) -> list[str]:
        seeds, milliseconds = len(offer.rows), latency_of(offer, self.latency)
        drop = f"{with_spread(*offer.drop, seeds)} below the dense {offer.dense('validation'):.2f}"
        over = f"mean and deviation over {seeds} seeds" if seeds > 1 else "one seed, so its spread is not known"
        sizes = [
            f"{quantity(offer.taken_size(size))} {name} ({offer.removed(size):.1%} gone)"
            for size, name in (("parameters", "parameters"), ("macs", "MACs"))
        ]
        timed = [] if milliseconds is None else [f"{milliseconds:.2f} ms"]
        test = with_spread(*offer.score("test"), seeds)
        return [
            f"validation {self.headline}  {with_spread(*offer.score('validation'), seeds)}, {drop}; {over}",
            f"test {self.headline}        {test} (dense {offer.dense('test'):.2f})",
            f"size   {', '.join([*sizes, *timed])}",
        ]

    def _notes(self, offer: Candidate) -> list[str]:
        """What to bear in mind."""
        mean, deviation = offer.drop
        notes = []
        if self.limits.drop is not None and len(offer.rows) > 1 and mean + deviation > self.limits.drop:
            notes.append(f"note   the limit is within the spread over seeds: {mean:.2f} ± {deviation:.2f} below dense")
        return [*notes, *self._unmeasured()]

    def _unmeasured(self) -> list[str]:
        """Which could not be compared with a limit of the latency."""
        unknown = [offer.taken.hash for offer in self.offers if latency_of(offer, self.latency) is None]
        if self.limits.latency is None or not unknown:
            return []
        count = f"{len(unknown)} of {len(self.offers)}"
        return [f"note   {count} were not measured by upop_ray.bench, and left out, for example {unknown[0]}"]
