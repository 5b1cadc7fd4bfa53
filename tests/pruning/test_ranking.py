"""The exact cut, worked out by hand, and its invariants."""

import pytest
import torch
from torch import Tensor

from upop_ray.errors import BudgetError, UpopError
from upop_ray.pruning.cost import removable_cost, removed_cost
from upop_ray.pruning.ranking import Ranking, keep_masks, standardised
from upop_ray.pruning.site import Keep, Kind, Site, Tower

COSTS = {"a": 3, "m": 1}


def site(name: str, kind: Kind, units: int, tower: Tower = "vision") -> Site:
    return Site(name, kind, tower, units, (), ())


PAIR = (site("a", "attention", 2), site("m", "mlp", 4))
#: standardised: a -0.71 0.71; m -1.16 -0.39 0.39 1.16, so that the order is m3 a1 m2 m1 a0 m0
SCORES = {"a": torch.tensor([0.0, 20.0]), "m": torch.tensor([1.0, 2.0, 3.0, 4.0])}


def kept(keep: Keep) -> dict[str, list[int]]:
    return {name: mask.nonzero().flatten().tolist() for name, mask in keep.items()}


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        # of a total cost of 10; removing in order costs 1, 4, 5, 6
        (0.04, {"a": [0, 1], "m": [0, 1, 2, 3]}),
        (0.06, {"a": [0, 1], "m": [0, 1, 2]}),
        (0.10, {"a": [0, 1], "m": [0, 1, 2]}),
        # a1 does not fit into what is left, m2 does
        (0.24, {"a": [0, 1], "m": [0, 1]}),
        # one more m is nearer to 2.6 than none
        (0.26, {"a": [0, 1], "m": [0]}),
        (0.40, {"a": [0], "m": [0, 1, 2]}),
        (0.50, {"a": [0], "m": [0, 1]}),
        (0.60, {"a": [0], "m": [0]}),
    ],
)
def test_the_exact_cut_by_hand(ratio: float, expected: dict[str, list[int]]) -> None:
    assert kept(keep_masks(SCORES, Ranking(PAIR, COSTS), ratio)) == expected


def test_units_of_one_cost_go_in_the_order_of_their_scores() -> None:
    ranking = Ranking(TOWERS, dict.fromkeys(TOWER_COSTS, 3))
    scores = random_scores(4)
    z, keep = standardised(scores, TOWERS), keep_masks(scores, ranking, 0.5)
    pooled, stays = (torch.cat([part[site.name] for site in TOWERS]) for part in (z, keep))
    assert pooled[stays].max() <= pooled[~stays].min()
    assert stays.sum() == len(stays) / 2


def test_the_published_cut_keeps_the_unit_at_the_threshold() -> None:
    # cumulated 1, 4, 5: 5 is the target, and the unit that reaches it stays
    assert kept(keep_masks(SCORES, Ranking(PAIR, COSTS, published=True), 0.5)) == {"a": [0], "m": [0, 1, 2]}


@pytest.mark.parametrize("published", [False, True])
def test_a_floor_keeps_the_best_units_of_each_site(published: bool) -> None:
    # by score alone site b would lose all of its units
    sites = (site("b", "mlp", 4), site("c", "mlp", 20))
    scores = {"b": torch.tensor([103.0, 101.0, 100.0, 102.0]), "c": torch.arange(20.0)}
    for floor in (1, 2, 3):
        ranking = Ranking(sites, {"b": 1, "c": 1}, published, floor=floor)
        assert kept(keep_masks(scores, ranking, 0.25))["b"] == sorted([2, 1, 3][:floor])


def test_a_floor_above_a_sites_width_keeps_it_whole() -> None:
    sites = (site("b", "mlp", 2), site("c", "mlp", 20))
    scores = {"b": torch.tensor([100.0, 100.0]), "c": torch.arange(20.0)}
    assert kept(keep_masks(scores, Ranking(sites, {"b": 1, "c": 1}, floor=8), 0.5))["b"] == [0, 1]


def test_a_floor_that_leaves_too_little_is_an_error() -> None:
    with pytest.raises(BudgetError, match=r"search\.ratio: 0\.9 .*search\.floor=1 .* at most 0\.6000 can"):
        keep_masks(SCORES, Ranking(PAIR, COSTS), 0.9)


TOWERS = (
    site("va", "attention", 8), site("vm", "mlp", 32),
    site("la", "attention", 8, "language"), site("lm", "mlp", 32, "language"),
)  # fmt: skip
TOWER_COSTS = {"va": 7, "vm": 2, "la": 5, "lm": 1}


def random_scores(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {s.name: torch.randn(s.units, generator=generator, dtype=dtype) for s in TOWERS}


def removed_share(keep: Keep, names: tuple[str, ...]) -> float:
    chosen = tuple(s for s in TOWERS if s.name in names)
    return removed_cost({name: keep[name] for name in names}, TOWER_COSTS) / removable_cost(chosen, TOWER_COSTS)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(
    ("group", "names"),
    [("attention", ("va", "la")), ("mlp", ("vm", "lm")), ("vision", ("va", "vm")), ("language", ("la", "lm"))],
)
def test_a_price_moves_removal_to_its_kind_or_tower(published: bool, group: str, names: tuple[str, ...]) -> None:
    scores = random_scores(0)
    shares = [
        removed_share(keep_masks(scores, Ranking(TOWERS, TOWER_COSTS, published, prices={group: price}), 0.5), names)
        for price in (-1.0, 0.0, 1.0)
    ]
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("published", [False, True])
def test_prices_of_zero_and_of_absent_towers_change_nothing(published: bool) -> None:
    scores = random_scores(1)
    free = keep_masks(scores, Ranking(TOWERS, TOWER_COSTS, published), 0.5)
    zeros = dict.fromkeys(("attention", "mlp", "vision", "language"), 0.0) | {"cross": 5.0}
    priced = keep_masks(scores, Ranking(TOWERS, TOWER_COSTS, published, prices=zeros), 0.5)
    assert kept(priced) == kept(free)


@pytest.mark.parametrize("published", [False, True])
def test_an_l1_penalty_changes_no_mask(published: bool) -> None:
    # between updates every gate is positive, so that the penalty adds its weight to each score of a kind at each step
    ranking = Ranking(TOWERS, TOWER_COSTS, published)
    for seed in range(5):
        scores = random_scores(seed)
        penalised = {s.name: scores[s.name] + (3.0 if s.kind == "attention" else 0.2) for s in TOWERS}
        assert kept(keep_masks(penalised, ranking, 0.5)) == kept(keep_masks(scores, ranking, 0.5))


def test_signed_scores_remove_the_largest_and_absolute_ones_the_smallest_magnitude() -> None:
    sites, costs = (site("m", "mlp", 6),), {"m": 1}
    scores = {"m": torch.tensor([-5.0, 4.0, -0.1, 0.2, -3.0, 2.0])}
    assert kept(keep_masks(scores, Ranking(sites, costs), 0.5)) == {"m": [0, 2, 4]}
    assert kept(keep_masks(scores, Ranking(sites, costs, score="absolute"), 0.5)) == {"m": [0, 1, 4]}


@pytest.mark.parametrize("seed", range(10))
def test_the_achieved_cost_is_within_half_a_unit_of_the_target(seed: int) -> None:
    ranking = Ranking(TOWERS, TOWER_COSTS)
    total = removable_cost(TOWERS, TOWER_COSTS)
    for percent in range(1, 90):
        removed = removed_cost(keep_masks(random_scores(seed), ranking, percent / 100), TOWER_COSTS)
        # as long as units of cost 1 are left
        largest_error = 0.5 if percent <= 60 else max(TOWER_COSTS.values()) / 2
        assert abs(removed - percent / 100 * total) <= largest_error + 1e-9


def test_masks_do_not_depend_on_the_scale_of_a_kind() -> None:
    ranking = Ranking(TOWERS, TOWER_COSTS)
    scores = random_scores(2)
    scaled = {s.name: scores[s.name] * (1024.0 if s.kind == "mlp" else 1.0) for s in TOWERS}
    assert kept(keep_masks(scaled, ranking, 0.4)) == kept(keep_masks(scores, ranking, 0.4))


def test_each_kind_is_standardised_over_all_of_its_sites() -> None:
    z = standardised(random_scores(3), TOWERS)
    for names in (("va", "la"), ("vm", "lm")):
        pooled = torch.cat([z[name] for name in names])
        assert pooled.mean().item() == pytest.approx(0, abs=1e-12)
        # unbiased, as published
        assert (pooled.square().sum() / (len(pooled) - 1)).item() == pytest.approx(1)


def test_equal_scores_are_level() -> None:
    z = standardised({"a": torch.tensor([7.0, 7.0]), "m": torch.full((4,), 0.5)}, PAIR)
    assert z["a"].tolist() == [0.0, 0.0] and z["m"].tolist() == [0.0] * 4


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_an_error(published: bool, broken: float) -> None:
    scores = random_scores(0)
    scores["lm"][5] = broken
    with pytest.raises(UpopError, match=r"lm: scores are not finite; lower search\.learning_rate"):
        keep_masks(scores, Ranking(TOWERS, TOWER_COSTS, published), 0.5)
