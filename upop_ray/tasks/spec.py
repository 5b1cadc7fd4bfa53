"""What training needs of a task."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from upop_ray.data.order import Cursor

#: makes all parameters of a (sharded) model readable while it is entered
Gathered = Callable[[], AbstractContextManager[Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Loss:
    """Loss of a rank's rows, and what a teacher can be compared with.

    :param value: its mean over ranks is the loss of the global batch
    :param logits: (n, classes), rows of unnormalised log-probabilities; -inf where a class is not possible
    """

    value: Tensor
    logits: Tensor


class Task(Protocol):
    """One task over one data set; made of (experiment, data set, processor, dense model).

    :cvar headline: name of the metric that curves show and that choices are made on; higher is better
    """

    headline: str

    def steps_per_epoch(self) -> int:
        """Steps of one epoch at the experiment's global batch size."""

    def start(self, model: nn.Module) -> None:
        """Begin a phase with a plain model without gates (momentum encoders are copied from it)."""

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> Any:
        """This rank's part of the global batch at ``cursor``; a pure function of its arguments and the seed.

        It may be computed by other processes, on pickled copies of the task.
        """

    def prepare(self, gathered: Gathered) -> None:
        """Called before each step, for what needs the online weights."""

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: Any, cursor: Cursor) -> Loss:
        """Loss of this rank's rows.

        :param forward: the model as it has to be called (the engine, when there is one)
        """

    def logits(self, teacher: nn.Module, batch: Any) -> Tensor:
        """What :meth:`loss` gives as logits, by another plain model of the family; called without gradients."""

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Metrics of a plain model on ``validation`` or ``test``, the same on every rank."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep of the task."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` gave, after :meth:`start`."""


class StatelessTask:
    """The part of a :class:`Task` that keeps nothing: no momentum encoder, no queue."""

    def start(self, model: nn.Module) -> None:
        """Nothing is made of the model."""

    def prepare(self, gathered: Gathered) -> None:
        """Nothing needs the online weights."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is none."""
