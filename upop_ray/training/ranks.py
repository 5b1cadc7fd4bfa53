"""State that differs between the ranks of a replica, on its way into a checkpoint and out of it."""

import numpy as np
import torch
from torch import Tensor

from upop_ray.store import PointPaths, Store
from upop_ray.tasks.collective import gather, rank, world_size
from upop_ray.training.checkpoint import PHASES, Checkpoint, latest_checkpoint, read_checkpoint


def common_checkpoint(store: Store, paths: PointPaths, device: torch.device) -> Checkpoint | None:
    """The furthest checkpoint, the same on all ranks: rank 0 chooses it, since listings of others may be older.

    :raises CheckpointError: it cannot be read
    """
    own = latest_checkpoint(store, paths) if rank() == 0 else None
    place = (PHASES.index(own.phase), own.step, own.attempt) if own else (-1, -1, -1)
    order, step, attempt = gather(torch.tensor([place], device=device))[0].tolist()
    if rank() == 0 or order < 0:
        return own
    return read_checkpoint(store, paths, (order, step, attempt))


def stacked(own: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Tensors of all ranks, one behind the other: (world, ...), on the CPU of each rank."""
    return {name: gather(value[None].to(device)).cpu() for name, value in own.items()}


def own_slices(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """This rank's slice of stacked tensors.

    On another number of workers scores are averaged over the former ranks, since their mean over ranks is what counts;
    what else a search keeps is equal on all ranks.
    """
    same = checkpoint.facts["world_size"] == world_size()
    own = {}
    for name, value in checkpoint.part(prefix).items():
        is_score = name.startswith("score/") and not same
        own[name] = value.mean(0) if is_score else value[rank() if same else 0]
    return own


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators, of the CPU and of the device that dropout draws on."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def seed_rank(*parts: int) -> None:
    """Seed torch from ``parts`` and the rank, so that ranks drop out different units."""
    torch.manual_seed(int(np.random.SeedSequence([*parts, rank()]).generate_state(1)[0]))


def restore_random_state(checkpoint: Checkpoint, seed: int, device: torch.device) -> None:
    """Go on with this rank's random numbers; with new ones on another number of workers, which has other ranks."""
    if checkpoint.facts["world_size"] == world_size():
        set_random_state(own_slices(checkpoint, "rng"), device)
    else:
        seed_rank(seed, checkpoint.step, world_size())


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore what :func:`random_state` gave."""
    # a copy: torch 2.13 dies of SIGSEGV on a slice that does not begin where its storage does
    torch.set_rng_state(state["cpu"].clone())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
