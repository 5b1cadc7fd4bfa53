"""Retraining of the sliced model with a new optimizer and a cosine (ALGORITHM, section 3)."""

from collections.abc import Iterator

from upop_ray.config import Retrain
from upop_ray.pruning.schedule import cosine, polynomial
from upop_ray.training.engine import Engine
from upop_ray.training.objective import Objective
from upop_ray.training.search import Step


def retrain(engine: Engine, objective: Objective, settings: Retrain, epochs: int, first: int = 0) -> Iterator[Step]:
    """Take the steps from ``first`` to the end of ``epochs``."""
    per_epoch = objective.steps_per_epoch
    for step in range(first, epochs * per_epoch):
        rate = learning_rate(settings, step, per_epoch, epochs)
        loss = objective(engine, step)
        engine.backward(loss)
        engine.step(rate)
        yield Step(step, loss.item(), rate)


def learning_rate(settings: Retrain, step: int, per_epoch: int, epochs: int) -> float:
    """From ``learning_rate`` down to ``minimum_learning_rate``; by ``epoch`` it is constant within one."""
    if settings.schedule == "polynomial":
        return polynomial(step, epochs * per_epoch, settings.learning_rate, settings.minimum_learning_rate)
    if settings.schedule == "epoch":
        return cosine(step // per_epoch, epochs, settings.learning_rate, settings.minimum_learning_rate)
    return cosine(step, epochs * per_epoch, settings.learning_rate, settings.minimum_learning_rate)
