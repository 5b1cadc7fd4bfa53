"""What a training step minimises: the task's loss, and the distance to the dense model where that teaches."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.config import Distillation
from upop_ray.data.order import Cursor
from upop_ray.tasks.collective import average, rank, world_size
from upop_ray.tasks.spec import Loss, Task
from upop_ray.training.engine import Engine
from upop_ray.training.feed import Feed, Part


class Objective:
    """Loss of a task, with distillation from the dense model where its weight is not 0 (Hinton et al., 2015).

    :ivar waited: seconds in which there was no batch to compute with, in all
    """

    def __init__(
        self, task: Task, settings: Distillation | None = None, teacher: nn.Module | None = None, epoch_steps: int = 0
    ) -> None:
        """Keep the task.

        :param teacher: the dense model on the device of training, needed where ``settings.weight`` is not 0
        :param epoch_steps: steps that count as an epoch; 0 is a pass over the data
        """
        self.task = task
        self.settings = settings or Distillation()
        self.steps_per_epoch = min(epoch_steps or task.steps_per_epoch(), task.steps_per_epoch())
        self._teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self._feed: Feed | None = None
        self.waited = 0.0

    @contextmanager
    def fed(self, steps: range, workers: int) -> Iterator[None]:
        """Take these steps, one after the other, with batches that other processes make ahead.

        :param workers: how many processes; without any, batches are made when they are needed
        """
        if not workers:
            yield
            return
        part = Part(self.task.batch, rank(), world_size())
        with closing(Feed(part, map(self._cursor, steps), workers)) as self._feed:
            try:
                yield
            finally:
                self._feed = None

    def __call__(self, engine: Engine, step: int) -> Tensor:
        """Loss of this rank's rows at a step counted from the start of the phase."""
        task = self.task
        cursor = self._cursor(step)
        batch = self._batch(cursor)
        task.prepare(engine.gathered)
        loss = task.loss(engine.model, engine.forward, batch, cursor)
        return loss.value if self._teacher is None else loss.value + self._distance(loss, batch)

    def _cursor(self, step: int) -> Cursor:
        return Cursor(*divmod(step, self.steps_per_epoch))

    def _batch(self, cursor: Cursor) -> Any:
        started = time.monotonic()
        batch = self._feed.take(cursor) if self._feed else self.task.batch(cursor, rank(), world_size())
        self.waited += time.monotonic() - started
        return batch

    def _distance(self, loss: Loss, batch: Any) -> Tensor:
        assert self._teacher is not None
        with torch.no_grad():
            soft = self.task.logits(self._teacher, batch)
        # rows of text differ in number from rank to rank; the mean over ranks is that of the global batch
        rows = torch.tensor(float(len(soft)), device=soft.device)
        share = rows / average(rows)
        return self.settings.weight * share * divergence(loss.logits, soft, self.settings.temperature)


class Pace:
    """How fast steps are taken, and how much of the time they wait for their batches."""

    def __init__(self, objective: Objective, batch_size: int, step: int) -> None:
        """Begin to measure after ``step`` steps.

        :param batch_size: examples of a step over all workers
        """
        self._objective, self._batch_size = objective, batch_size
        self.restart(step)

    def restart(self, step: int) -> None:
        """Leave out what was done since the last measurement."""
        self._since, self._waited, self._step = time.monotonic(), self._objective.waited, step

    def measured(self, step: int) -> dict[str, float]:
        """Examples per second and the share of time spent waiting, since the last measurement."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        examples = (step - self._step) * self._batch_size
        share = (self._objective.waited - self._waited) / seconds
        self.restart(step)
        return {"examples_per_second": examples / seconds, "waiting_share": share}


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``temperature^2 * KL(teacher || student)`` of softened rows, mean over rows.

    :param student: (n, classes) logits; -inf where a class is not possible, for both
    :param teacher: likewise
    """
    possible = torch.isfinite(teacher)
    log_student = functional.log_softmax(student.float() / temperature, 1).masked_fill(~possible, 0)
    log_teacher = functional.log_softmax(teacher.float() / temperature, 1)
    terms = log_teacher.exp() * (log_teacher.masked_fill(~possible, 0) - log_student)
    return temperature**2 * terms.sum(1).mean()
