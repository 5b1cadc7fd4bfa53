"""A few real steps of the search on this machine, with random data: the same gates, engine and ranking."""

import copy
import statistics
import time

import torch
from torch import Tensor
from transformers import PreTrainedModel

from upop_ray.config import Experiment, replaced
from upop_ray.plan.speed import Speed
from upop_ray.plan.subject import Subject
from upop_ray.plan.training_step import has_twin, passes, stand_in_loss
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.methods import METHODS
from upop_ray.pruning.ranking import Ranking
from upop_ray.tasks.contrastive import MomentumContrast
from upop_ray.training.engine import Engine, EngineSettings, LocalEngine
from upop_ray.training.objective import Objective
from upop_ray.training.search import MaskSearch

_STEPS = 5
_GROWTH = 4
#: seconds that all steps together may take
_ALLOWED = 25.0


class _RandomSteps(Objective):
    """The forward passes of training on random inputs; a pass over the data is the measured steps."""

    def __init__(self, subject: Subject, model: PreTrainedModel, rows: int, steps: int) -> None:
        experiment = subject.experiment
        self.steps_per_epoch = steps
        self._inputs = passes(experiment, subject.spec, model, rows)
        self._contrast: MomentumContrast | None = None
        if has_twin(experiment):
            # one number a feature: the queue is no part of what is measured
            self._contrast = MomentumContrast(model, 1, experiment.task.momentum)  # type: ignore[union-attr]
        self._dense = copy.deepcopy(model).eval() if experiment.distill.weight else None

    def __call__(self, engine: Engine, step: int) -> Tensor:
        with torch.no_grad():
            if self._contrast is not None:
                with engine.gathered() as online:
                    self._contrast.update_twin(online)
                self._contrast.twin(**self._inputs[0])
            if self._dense is not None:
                self._dense(**self._inputs[0])
        return torch.stack([stand_in_loss(engine.forward(**inputs)) for inputs in self._inputs]).sum()


def measured(subject: Subject) -> Speed:
    """Time steps of the search on as much of a worker's batch as the time allows; the last of them ranks all units."""
    experiment = subject.experiment
    on_gpu = experiment.replica.gpus_per_worker > 0 and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.set_num_threads(max(1, round(experiment.replica.cpus_per_worker)))
    model = _on_device(subject, device)
    rows = _affordable_rows(subject, model)
    seconds = _timed(subject, model, rows, _STEPS)
    # the first step allocates and ranks, the last one ranks
    step = statistics.median(seconds[1:-1])
    words = f"{_STEPS} measured steps of {rows} examples on this machine's {_name(device)}, one process, random data"
    return Speed(step / rows, max(0.0, seconds[-1] - step), True, words)


def _affordable_rows(subject: Subject, model: PreTrainedModel) -> int:
    """A worker's part of a batch, or as many examples as :data:`_STEPS` steps can take within the time."""
    wanted = subject.experiment.batch_size // subject.experiment.replica.workers
    rows, step = 1, min(_timed(subject, model, 1, 2))
    while rows < wanted:
        more = min(wanted, _GROWTH * rows)
        if step * more / rows * _STEPS > _ALLOWED:
            break
        rows, step = more, min(_timed(subject, model, more, 2))
    return rows


def _on_device(subject: Subject, device: torch.device) -> PreTrainedModel:
    known: PreTrainedModel = copy.deepcopy(subject.model)
    # of a published size there are no weights, random ones serve
    model: PreTrainedModel = known if subject.problem is None else type(known)(known.config)
    return model.to(device)


def _timed(subject: Subject, model: PreTrainedModel, rows: int, steps: int) -> list[float]:
    """Seconds of each step."""
    experiment, model = subject.experiment, copy.deepcopy(model)
    objective = _RandomSteps(subject, model, rows, steps)
    gates = Gates(model, subject.sites)
    gates.attach(model)
    engine = LocalEngine(
        model, EngineSettings(experiment.optimizer, experiment.search.learning_rate, experiment.precision)
    )
    ranking = Ranking(subject.sites, subject.costs(experiment.search.budget), experiment.search.budget == "units")
    search = MaskSearch(engine, gates, objective, METHODS["upop"], ranking)
    seconds, before = [], time.monotonic()
    for _ in search.run(_settings(experiment, steps).search):
        seconds.append(time.monotonic() - before)
        before = time.monotonic()
    engine.close()
    return seconds


def _settings(experiment: Experiment, steps: int) -> Experiment:
    return replaced(experiment, {"search.epochs": 1, "search.interval": steps, "sweep.by_ratio": {}})


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU with {torch.get_num_threads()} threads"
