"""What a rank's failure means: the loss of a peer, or the point's own defect."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import TuneError

from upop_ray.distributed.losses import NodeLost, broke_a_connection, unexpected
from upop_ray.training.progress import GivenBack


def a_rank(rank: int, meeting: str, answers: Any) -> None:
    """Rank 0 ends without a word; rank 1 tells what it hears of that in a collective."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.distributed.all_reduce(torch.ones(1))
    if rank == 0:
        os._exit(1)
    try:
        torch.distributed.all_reduce(torch.ones(1000))
    except RuntimeError as error:
        answers.put((broke_a_connection(error), str(error)))


def test_a_peer_that_has_gone_is_told_from_a_defect(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    ranks = [context.Process(target=a_rank, args=(rank, str(tmp_path / "meeting"), answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    lost, text = answers.get(timeout=120)
    for process in ranks:
        process.join(60)
    assert lost, text
    assert not broke_a_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("step", "Traceback", cause)


@pytest.mark.parametrize(
    "error",
    [
        None,
        raised(NodeLost("gone")),
        raised(GivenBack()),
        raised(RayError("a peer is gone")),
        RayActorError(),
        TuneError("a trial's process did not answer"),
    ],
)
def test_losses_and_notices_are_no_defects(error: Exception | None) -> None:
    assert unexpected(error) is None


def test_anything_else_is_named_in_a_line() -> None:
    assert unexpected(raised(RuntimeError("no such device\nsee above"))) == "RuntimeError: no such device"
    assert unexpected(raised(KeyError())) == "KeyError: KeyError"
    dead = RayActorError(error_msg="died in its creation task\n\nRuntimeError: no such device", actor_init_failed=True)
    assert unexpected(dead) == "RuntimeError: no such device"
