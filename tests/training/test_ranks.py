"""State that differs between ranks, when as many of them come back and when others do."""

from typing import Any

import torch

from tests.ranks import Ranks
from upop_ray.tasks.collective import rank
from upop_ray.training.checkpoint import Checkpoint
from upop_ray.training.ranks import own_slices, random_state, restore_random_state, stacked


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
