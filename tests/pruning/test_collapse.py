"""When a modality has lost nearly everything, it is said, with the cure."""

import torch
from torch import Tensor

from upop_ray.pruning.collapse import collapse_warnings
from upop_ray.pruning.site import Site

SITES = (
    Site("vision.0.attn", "attention", "vision", 40, (), ()),
    Site("text.0.cross", "attention", "cross", 40, (), ()),
    Site("text.1.cross", "attention", "cross", 60, (), ()),
)


def keeping(*counts: int) -> dict[str, Tensor]:
    return {site.name: torch.arange(site.units) < count for site, count in zip(SITES, counts, strict=True)}


def test_a_kind_of_a_tower_below_the_share_is_named_with_what_it_keeps_and_the_cure() -> None:
    (line,) = collapse_warnings(SITES, keeping(30, 1, 2), 0.05)
    assert line.startswith("cross/attention keeps 3.0% of its units (3 of 100), less than search.collapse_share 5%")
    assert "search.floors.cross/attention=0.1" in line and "search.regularisation.cross" in line


def test_sites_count_together_and_the_share_itself_is_enough() -> None:
    assert not collapse_warnings(SITES, keeping(30, 1, 4), 0.05)
    assert len(collapse_warnings(SITES, keeping(1, 1, 1), 0.05)) == 2


def test_a_share_of_zero_warns_of_nothing() -> None:
    assert not collapse_warnings(SITES, keeping(1, 1, 1), 0.0)
