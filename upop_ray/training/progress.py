"""What a point needs from where it runs, and what it tells meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from upop_ray.store import Store
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.engine import EngineFactory

#: part of the seconds of a point that go into taking it up again
RESTART = "restart"


class GivenBack(Exception):
    """The point has been saved and left for another replica, because this one was told to leave."""


def _stays() -> bool:
    return False


@dataclass(frozen=True)
class Progress:
    """What a point reports: how far a phase is, and metrics by name.

    :param note: something that the user should know
    :param validation: (epochs of retraining done, headline metric on the validation split), after each of them
    :param manifest: of the finished point, with the last report
    :param seconds: by part of the work, over all attempts that this one goes on from
    :param kept: share of its units that each site keeps, while masks are searched for
    """

    phase: str
    step: int
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    validation: tuple[int, float] | None = None
    manifest: dict[str, Any] | None = None
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """Where a point runs.

    :param engine: builds the engine of each phase
    :param attempt: the claim under which this replica writes; every rank has it, rank 0 writes
    :param leaving: whether this process has been told to leave; asked after each step
    """

    store: Store
    engine: EngineFactory
    attempt: Attempt
    device: torch.device
    leaving: Callable[[], bool] = _stays


class Stopwatch:
    """Adds the seconds since the last lap to a part's total.

    :ivar totals: seconds by part
    """

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, part: str) -> None:
        """Credit the time since the last lap to ``part``."""
        now = time.monotonic()
        self.totals[part] = self.totals.get(part, 0.0) + now - self._last
        self._last = now
