"""State that differs between ranks, when as many of them come back and when others do."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.ranks import Ranks
from upop_ray.store import PointPaths, Store
from upop_ray.tasks.collective import rank
from upop_ray.training.checkpoint import Attempt, Checkpoint
from upop_ray.training.ranks import common_checkpoint, own_slices, random_state, restore_random_state, stacked


def saved() -> Checkpoint:
    """By two ranks, seeded 0 and 1, with scores 0 and 1."""
    torch.manual_seed(rank())
    state = {f"rng/{name}": value for name, value in random_state(torch.device("cpu")).items()}
    state["search/score/a"] = torch.tensor([float(rank())])
    return Checkpoint("search", 5, stacked(state, torch.device("cpu")), {"world_size": 2})


def drawn(checkpoint: Checkpoint) -> float:
    restore_random_state(checkpoint, 0, torch.device("cpu"))
    return torch.rand(()).item()


def on_two_ranks() -> dict[str, Any]:
    checkpoint = saved()
    other = Checkpoint("search", 5, checkpoint.tensors, {"world_size": 4})
    return {
        "checkpoint": checkpoint,
        "score": own_slices(checkpoint, "search")["score/a"].item(),
        "same": drawn(checkpoint),
        "other": (drawn(other), drawn(other)),
    }


def test_the_same_ranks_go_on_with_their_own_numbers(two_ranks: Ranks) -> None:
    first, second = two_ranks.run(on_two_ranks)
    for seed, answer in enumerate((first, second)):
        torch.manual_seed(seed)
        assert (answer["same"], answer["score"]) == (torch.rand(()).item(), float(seed))


def test_other_ranks_draw_differently_from_each_other_and_repeatably(two_ranks: Ranks) -> None:
    first, second = two_ranks.run(on_two_ranks)
    assert first["other"][0] == first["other"][1] != second["other"][0] == second["other"][1]


def test_one_process_takes_the_mean_of_the_scores_of_two(two_ranks: Ranks) -> None:
    checkpoint = two_ranks.run(on_two_ranks)[0]["checkpoint"]
    assert own_slices(checkpoint, "search")["score/a"].item() == 0.5


def found_by_two_ranks(store: str, paths: PointPaths) -> tuple[Any, ...] | None:
    """The checkpoint that this rank takes; the second rank's listing would fail it."""
    listing = mock.patch("upop_ray.training.ranks.latest_checkpoint", side_effect=AssertionError("another listing"))
    if rank() == 0:
        found = common_checkpoint(Store(store), paths, torch.device("cpu"))
    else:
        with listing:
            found = common_checkpoint(Store(store), paths, torch.device("cpu"))
    return None if found is None else (found.phase, found.step, found.attempt, found.tensors["x"].item())


def test_all_ranks_go_on_from_the_checkpoint_that_rank_0_finds(two_ranks: Ranks, tmp_path: Path) -> None:
    store, paths = Store(str(tmp_path)), PointPaths("abc")
    assert two_ranks.run(found_by_two_ranks, str(tmp_path), paths) == [None, None]
    for step in (3, 4):
        attempt = Attempt.begin(store, paths)
        attempt.save(Checkpoint("search", step, {"x": torch.tensor(float(step))}, {}))
        attempt.settle()
    assert two_ranks.run(found_by_two_ranks, str(tmp_path), paths) == [("search", 4, 1, 4.0)] * 2
