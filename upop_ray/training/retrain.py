"""Retraining of the sliced model with a new optimizer and a cosine (ALGORITHM, section 3)."""

from collections.abc import Iterator

from upop_ray.config import Retrain
from upop_ray.data.image_text import Cursor
from upop_ray.pruning.schedule import cosine
from upop_ray.tasks.collective import rank, world_size
from upop_ray.tasks.spec import Task
from upop_ray.training.engine import Engine
from upop_ray.training.search import Step


def retrain(engine: Engine, task: Task, settings: Retrain, epochs: int, first: int = 0) -> Iterator[Step]:
    """Take the steps from ``first`` to the end of ``epochs``."""
    per_epoch = task.steps_per_epoch()
    for step in range(first, epochs * per_epoch):
        cursor = Cursor(*divmod(step, per_epoch))
        rate = learning_rate(settings, step, per_epoch, epochs)
        batch = task.batch(cursor, rank(), world_size())
        task.prepare(engine.gathered)
        loss = task.loss(engine.model, engine.forward, batch, cursor)
        engine.backward(loss)
        engine.step(rate)
        yield Step(step, loss.item(), rate)


def learning_rate(settings: Retrain, step: int, per_epoch: int, epochs: int) -> float:
    """Cosine from ``learning_rate`` to ``minimum_learning_rate``, by step or (published) constant within an epoch."""
    if settings.schedule == "epoch":
        return cosine(step // per_epoch, epochs, settings.learning_rate, settings.minimum_learning_rate)
    return cosine(step, epochs * per_epoch, settings.learning_rate, settings.minimum_learning_rate)
