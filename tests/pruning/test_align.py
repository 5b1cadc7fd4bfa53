"""Widths in multiples: by hand, against a plain reference, and for many seeds and ratios."""

import itertools

import pytest
import torch
from torch import Tensor

from upop_ray.pruning.cost import removable_cost, removed_cost
from upop_ray.pruning.ranking import Ranking, allowed_miss, cut
from upop_ray.pruning.site import Keep, Kind, Site, Tower, kept_counts


def site(name: str, kind: Kind, units: int, tower: Tower = "vision") -> Site:
    return Site(name, kind, tower, units, (), ())


#: dense widths that are multiples of 4 and 8, and others
SITES = (
    site("va", "attention", 96), site("vm", "mlp", 300), site("la", "attention", 50, "language"),
    site("lm", "mlp", 128, "language"), site("small", "mlp", 3, "language"),
)  # fmt: skip
COSTS = {"va": 8, "vm": 1, "la": 5, "lm": 2, "small": 1}


def scores(seed: int, sites: tuple[Site, ...] = SITES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {s.name: torch.randn(s.units, generator=generator, dtype=torch.double) for s in sites}


def test_widths_by_hand() -> None:
    pair = (site("a", "mlp", 8), site("b", "mlp", 6))
    values = {"a": torch.arange(8.0), "b": torch.tensor([6.1, 0.0, 0.0, 0.0, 0.0, 9.0])}
    ranking = Ranking(pair, {"a": 1, "b": 1}, align=4)
    # blocks: the 4 of a with mean 5.5, and the 2 of b with mean 7.55 that take it to 4; both keep 4 at least
    assert kept_counts(cut(values, ranking, 2 / 14)) == {"a": 8, "b": 4}
    assert kept_counts(cut(values, ranking, 6 / 14)) == {"a": 4, "b": 4}
    keep = cut(values, ranking, 6 / 14)
    assert keep["a"].tolist() == [True] * 4 + [False] * 4 and keep["b"].tolist() == [False, *[True] * 4, False]


@pytest.mark.parametrize("align", [2, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_widths_and_budget_for_every_ratio(align: int, seed: int) -> None:
    values, ranking = scores(seed), Ranking(SITES, COSTS, align=align)
    total = removable_cost(SITES, COSTS)
    for ratio in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        keep = cut(values, ranking, ratio)
        for s in SITES:
            width = int(keep[s.name].sum())
            assert width == s.units or (width % align == 0 and width > 0)
            assert width == s.units or values[s.name][keep[s.name]].max() <= values[s.name][~keep[s.name]].min()
        miss = abs(removed_cost(keep, COSTS) - ratio * total)
        assert miss <= _cheapest_left(keep, align) / 2 + 1e-9
        assert miss / total <= allowed_miss(ranking)
    # what is narrower than a multiple stays whole
    assert align == 2 or kept_counts(keep)["small"] == 3


def _cheapest_left(keep: Keep, align: int) -> float:
    """Cost of the cheapest block that could still go; where none can, of the largest that went last."""
    costs = []
    for s in SITES:
        width = int(keep[s.name].sum())
        if width > align:
            costs.append((width % align or align) * COSTS[s.name])
    return min(costs, default=align * max(COSTS.values()))


@pytest.mark.parametrize("align", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_cut_is_that_of_a_plain_reference(align: int, seed: int) -> None:
    ranking = Ranking(SITES, COSTS, align=align)
    for percent in range(5, 85, 8):
        values = scores(seed)
        expected = _reference(values, align, percent / 100)
        assert {
            name: (~mask).nonzero().flatten().tolist() for name, mask in cut(values, ranking, percent / 100).items()
        } == expected


def _reference(values: dict[str, Tensor], align: int, ratio: float) -> dict[str, list[int]]:
    """The rule in plain lists: blocks by mean score, those that fit, and one more where that is nearer."""
    blocks = []
    for s in SITES:
        order = sorted(range(s.units), key=lambda unit: -float(values[s.name][unit]))
        start = 0
        while s.units - start > align:
            size = (s.units - start) % align or align
            units = order[start : start + size]
            blocks.append((sum(float(values[s.name][u]) for u in units) / size, size * COSTS[s.name], s.name, units))
            start += size
    blocks.sort(key=lambda block: -block[0])
    left = ratio * removable_cost(SITES, COSTS)
    removed: dict[str, list[int]] = {s.name: [] for s in SITES}
    rest, stopped = [], False
    for block in blocks:
        stopped = stopped or block[1] > left
        if stopped:
            rest.append(block)
            continue
        left -= block[1]
        removed[block[2]] += block[3]
    for block in list(rest):
        if block[1] <= left:
            left -= block[1]
            removed[block[2]] += block[3]
            rest.remove(block)
    if rest:
        nearest = min(rest, key=lambda block: block[1])
        if nearest[1] < 2 * left:
            removed[nearest[2]] += nearest[3]
    return {name: sorted(units) for name, units in removed.items()}


@pytest.mark.parametrize("seed", range(5))
def test_no_other_widths_of_the_same_sum_remove_more_score(seed: int) -> None:
    trio = (site("a", "mlp", 12), site("b", "mlp", 12), site("c", "mlp", 12, "language"))
    values, ranking = scores(seed, trio), Ranking(trio, {"a": 1, "b": 1, "c": 1}, floors={"vision": 12}, align=4)
    for removed in (4, 8, 12, 16, 20):
        keep = cut(values, ranking, removed / 36)
        found = sum(float(values[name][~mask].sum()) for name, mask in keep.items())
        sums = [
            sum(
                float(values[s.name].sort(descending=True).values[:gone].sum())
                for s, gone in zip(trio, each, strict=True)
            )
            for each in itertools.product((0, 4, 8), repeat=3)
            if sum(each) == removed and each[0] + each[1] <= 12
        ]
        assert found == pytest.approx(max(sums))


def test_equal_scores_leave_in_the_order_of_sites() -> None:
    # the mean of three times 0.1 is not 0.1: rounding must not take a later block of a site before an earlier one
    pair = (site("a", "mlp", 10), site("b", "mlp", 9))
    values = {"a": torch.full((10,), 0.1), "b": torch.full((9,), 0.1)}
    for removed, widths in ((1, (9, 9)), (4, (6, 9)), (7, (3, 9)), (10, (3, 6)), (13, (3, 3))):
        keep = cut(values, Ranking(pair, {"a": 1, "b": 1}, align=3), removed / 19)
        assert tuple(kept_counts(keep).values()) == widths


def test_a_floor_is_raised_to_a_multiple() -> None:
    keep = cut(scores(0), Ranking(SITES, COSTS, floor=9, floors={"lm": 33}, align=8), 0.5)
    counts = kept_counts(keep)
    assert counts["lm"] >= 40 and min(counts["va"], counts["vm"], counts["la"]) >= 16
