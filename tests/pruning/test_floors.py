"""Floors by tower, kind and site: worked out by hand, and against a search through everything there is."""

import itertools

import pytest
import torch
from torch import Tensor

from upop_ray.errors import BudgetError, ConfigError
from upop_ray.pruning.cost import removed_cost
from upop_ray.pruning.floors import limits
from upop_ray.pruning.ranking import Ranking, cut, require_feasible
from upop_ray.pruning.site import Keep, Kind, Site, Tower, kept_counts


def site(name: str, kind: Kind, tower: Tower, units: int) -> Site:
    return Site(name, kind, tower, units, (), ())


SITES = (
    site("v.a", "attention", "vision", 4), site("v.0.m", "mlp", "vision", 10), site("v.1.m", "mlp", "vision", 10),
    site("t.a", "attention", "language", 4), site("t.m", "mlp", "language", 10),
)  # fmt: skip
COSTS = dict.fromkeys((s.name for s in SITES), 1)


def scores(seed: int, **shifts: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {s.name: torch.randn(s.units, generator=generator) + shifts.get(s.name[0], 0.0) for s in SITES}


def kept(keep: Keep, *names: str) -> int:
    return sum(kept_counts(keep)[name] for name in names)


@pytest.mark.parametrize(
    ("floors", "expected"),
    [
        # without floors everything of the text tower goes first, but for the unit that every site keeps
        ({}, (1, 1)),
        ({"language": 0.5}, (2, 5)),
        ({"language/mlp": 0.31}, (1, 4)),
        ({"mlp": 0.3}, (1, 3)),
        ({"language/mlp": 6}, (1, 6)),
        ({"t.m": 6}, (1, 6)),
        ({"t.a": 0.75}, (3, 1)),
        # the most specific name counts, in whatever order they stand
        ({"mlp": 0.9, "language": 0.5, "language/mlp": 0.2}, (2, 2)),
        ({"language/mlp": 0.2, "language": 0.5, "mlp": 0.9}, (2, 2)),
        ({"attention": 0.75, "mlp": 0.2}, (3, 2)),
    ],
)
def test_what_a_shunned_tower_keeps(floors: dict[str, float], expected: tuple[int, int]) -> None:
    # 13 of 38 are removed, as many as the text tower has above one unit a site
    keep = cut(scores(0, t=100.0), Ranking(SITES, COSTS, floors=floors), 12.0 / 38)
    assert (kept(keep, "t.a"), kept(keep, "t.m")) == expected


def test_the_floor_of_a_tower_is_for_its_sites_together() -> None:
    first = scores(0, v=100.0)
    first["v.0.m"] += 100
    keep = cut(first, Ranking(SITES, COSTS, floors={"vision": 0.3}), 16 / 38)
    # 6 of 20 stay: the one that the whole floor leaves, and the best 5 of the site that is wanted more
    assert kept_counts(keep) == {"v.a": 2, "v.0.m": 1, "v.1.m": 5, "t.a": 4, "t.m": 10}
    best = torch.sort(first["v.1.m"]).indices[:5]
    assert keep["v.1.m"][best].all()


def test_the_floor_of_a_site_holds_beside_that_of_its_tower() -> None:
    keep = cut(scores(0, v=100.0), Ranking(SITES, COSTS, floors={"vision": 0.6, "v.0.m": 0.9}), 9 / 38)
    assert kept(keep, "v.0.m") == 9 and kept(keep, "v.0.m", "v.1.m") == 12


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_floors_hold_in_both_cuts(published: bool, seed: int) -> None:
    floors = {"language": 0.4, "vision/mlp": 13, "v.0.m": 3}
    for ratio in (0.1, 0.3, 0.45):
        keep = cut(scores(seed, t=1.0), Ranking(SITES, COSTS, published, floors=floors), ratio)
        assert kept(keep, "t.a") >= 2 and kept(keep, "t.m") >= 4
        assert kept(keep, "v.0.m", "v.1.m") >= 13 and kept(keep, "v.0.m") >= 3


@pytest.mark.parametrize("seed", range(5))
def test_what_goes_is_what_would_be_missed_least_of_all_that_may_go(seed: int) -> None:
    sites = (site("a", "mlp", "vision", 4), site("b", "mlp", "vision", 4), site("c", "mlp", "language", 4))
    generator = torch.Generator().manual_seed(seed)
    values = {s.name: torch.randn(4, generator=generator) + (s.name != "c") for s in sites}
    ranking = Ranking(sites, {"a": 1, "b": 1, "c": 1}, floors={"vision": 4, "b": 2})
    for removed in range(1, 8):
        keep = cut(values, ranking, removed / 12)
        total = sum(float(values[name][~mask].sum()) for name, mask in keep.items())
        assert total == pytest.approx(_best_removal(values, removed))


def _best_removal(values: dict[str, Tensor], removed: int) -> float:
    """The largest sum of scores over all sets of so many units that leave vision 4 and each site its floor."""
    best = -float("inf")
    pool = [(name, value) for name, tensor in values.items() for value in tensor.tolist()]
    for chosen in itertools.combinations(pool, removed):
        left = {name: 4 - sum(own == name for own, _ in chosen) for name in values}
        if left["a"] >= 1 and left["b"] >= 2 and left["c"] >= 1 and left["a"] + left["b"] >= 4:
            best = max(best, sum(value for _, value in chosen))
    return best


@pytest.mark.parametrize(
    ("floors", "words"),
    [
        ({"text": 0.5}, r"search\.floors\.text: is no tower, kind or site .* language/mlp, .*sites v\.a, v\.0\.m"),
        ({"language/cross": 0.5}, r"search\.floors\.language/cross: is no tower"),
        ({"language/mlp": 11}, r"search\.floors\.language/mlp: 11 units asked, there are 10"),
        ({"t.a": 5}, r"search\.floors\.t\.a: 5 units asked, there are 4"),
    ],
)
def test_a_floor_that_fits_nothing_is_named(floors: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        limits(SITES, 1, floors)


@pytest.mark.parametrize(
    ("floors", "align", "removable"),
    [
        ({}, 1, 33),
        ({"language": 0.5}, 1, 38 - 1 - 2 - 2 - 5),
        ({"vision": 0.9, "t.m": 10}, 1, 0 + 2 + 0 + 3),
        # widths 4 or 8 or 10, and 4: one block of 2 and one of 4 from each MLP
        ({}, 4, 18),
        # of the 20 units of both MLPs 14 stay, whatever the order of blocks of 2 and 4 (at times 12)
        ({"vision/mlp": 11}, 4, 12),
        ({"t.m": 5}, 4, 14),
    ],
)
def test_at_most_what_floors_leave_can_be_removed(floors: dict[str, float], align: int, removable: int) -> None:
    ranking = Ranking(SITES, COSTS, floors=floors, align=align)
    require_feasible(ranking, removable / 38)
    for seed in range(5):
        assert removed_cost(cut(scores(seed), ranking, removable / 38), COSTS) >= removable - align / 2
    with pytest.raises(BudgetError, match=rf"at most {removable / 38:.4f} can"):
        require_feasible(ranking, (removable + 1) / 38)


def test_the_promise_holds_where_units_of_a_group_cost_differently() -> None:
    costs = COSTS | {"v.0.m": 5}
    ranking = Ranking(SITES, costs, floors={"vision/mlp": 10})
    total = sum(s.units * costs[s.name] for s in SITES)
    # the scores may have the 8 that stay beyond one a site be of the costly site
    sure = 1 * 5 + 9 + 3 + 3 + 9
    with pytest.raises(BudgetError, match=rf"at most {sure / total:.4f} can"):
        require_feasible(ranking, 0.6)
    for seed in range(5):
        assert abs(removed_cost(cut(scores(seed), ranking, sure / total), costs) - sure) <= 0.5
