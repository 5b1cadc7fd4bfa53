"""One point from start to end: search, slice, retrain, evaluate, export."""

import copy
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from upop_ray.models.drop_path import add_drop_path
from upop_ray.pruning.collapse import collapse_warnings
from upop_ray.pruning.compress import folded_state
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.methods import METHODS, unsearched_masks
from upop_ray.pruning.ranking import require_feasible
from upop_ray.pruning.site import Keep, kept_counts, kept_share, site_shares
from upop_ray.store import PointPaths
from upop_ray.tasks.collective import gather, rank, world_size
from upop_ray.tracking import MetricRows
from upop_ray.training.budget import ranking_of
from upop_ray.training.checkpoint import KEPT, Checkpoint, named
from upop_ray.training.engine import Engine, EngineSettings
from upop_ray.training.feed import prepare_processes
from upop_ray.training.finish import Outcome, dense_facts, finish
from upop_ray.training.objective import Objective, Pace
from upop_ray.training.prepared import Prepared
from upop_ray.training.progress import RESTART, GivenBack, Host, Progress, Stopwatch
from upop_ray.training.ranks import (
    common_checkpoint,
    own_slices,
    random_state,
    restore_random_state,
    seed_rank,
    stacked,
)
from upop_ray.training.retrain import retrain
from upop_ray.training.search import MaskSearch, Step
from upop_ray.training.slicing import achieved_ratio, proven_slice

#: masks, and the weights they apply to
Masks: TypeAlias = tuple[Keep, dict[str, Tensor]]


class Point:
    """Runs one point; every rank of a replica runs the same code in step, and rank 0 writes."""

    def __init__(self, prepared: Prepared, host: Host) -> None:
        self.prepared, self.host = prepared, host
        self.experiment = prepared.experiment
        self.paths = PointPaths(prepared.hash)
        self.rows = MetricRows()
        self.facts: dict[str, Any] = {}
        self._watch = Stopwatch()
        search = self.experiment.search
        self.method = METHODS[search.method]
        self.ranking = ranking_of(search, prepared.spec, prepared.model)
        self.sites, self.costs = self.ranking.sites, self.ranking.costs

    def run(self) -> Iterator[Progress]:
        """Go from the last checkpoint, or from the dense model, to the manifest; yields reports, the manifest last.

        :raises UpopError: something the user can cure
        :raises StaleAttempt: another replica has taken the point over
        :raises GivenBack: a process of the replica was told to leave, and the point has been saved
        """
        require_feasible(self.ranking, self.experiment.search.ratio)
        for progress in self._reports():
            yield replace(progress, seconds=dict(self._watch.totals))

    def _reports(self) -> Iterator[Progress]:
        if self.experiment.data.workers:
            prepare_processes()
        torch.manual_seed(self.experiment.seed)
        self.task = self.prepared.task()
        self._watch.lap("start")
        dense = dense_facts(self.prepared, self.task, self.host.store, self.host.device)
        self._watch.lap("evaluate")
        checkpoint = common_checkpoint(self.host.store, self.paths, self.host.device)
        if checkpoint is not None:
            self.rows = checkpoint.metrics
            self.facts = checkpoint.facts["facts"]
            # what this attempt has spent to get here would not have been needed without the failure
            self._watch.totals.clear()
            self._watch.totals.update(checkpoint.facts["seconds"])
            yield _resumed(checkpoint, self._layout())
        if checkpoint is None or checkpoint.phase == "search":
            keep, weights = yield from self._masks(checkpoint)
            for line in collapse_warnings(self.sites, keep, self.experiment.search.collapse_share):
                yield Progress("search", 0, 0, note=f"warning: {line}")
            self.facts["achieved_ratio"] = achieved_ratio(keep, self.ranking, self.experiment.search)
            sliced, self.facts["masked_vs_sliced"] = proven_slice(self.prepared, keep, weights)
            sliced = sliced.to(self.host.device)
            checkpoint = None
            self.facts["before_retraining"] = self.task.evaluate(sliced, "validation")
            self._watch.lap("evaluate")
        else:
            keep = checkpoint.part("keep")
            sliced = self.prepared.spec.sliced(self.prepared.model, self.prepared.model.state_dict(), keep)
        final = yield from self._retrain(sliced, keep, checkpoint)
        self._watch.lap("evaluate")
        outcome = Outcome(final, keep, self.costs, self.facts, self._watch, self.rows)
        manifest = finish(self.prepared, self.task, self.host.store, self.host.attempt, dense, outcome)
        yield Progress("finished", 1, 1, manifest=manifest)

    def _masks(self, checkpoint: Checkpoint | None) -> Generator[Progress, None, Masks]:
        """Masks and the weights they apply to, from a search or straight from the dense weights."""
        if not self.method.searches:
            search = self.experiment.search
            model = self.prepared.model
            keep = unsearched_masks(model, self.method, self.ranking, search.ratio, self.experiment.seed)
            return keep, model.state_dict()
        return (yield from self._search(checkpoint))

    def _search(self, checkpoint: Checkpoint | None) -> Generator[Progress, None, Masks]:
        settings = self.experiment.search
        model = copy.deepcopy(self.prepared.model).to(self.host.device)
        self.task.start(model)
        gates = Gates(model, self.sites)
        gates.attach(model)
        engine = self._engine(model, settings.learning_rate)
        objective = self._objective()
        search = MaskSearch(engine, gates, objective, self.method, self.ranking)
        first = 0
        if checkpoint is not None:
            first = checkpoint.step
            self._load(engine, checkpoint)
            search.load_state(own_slices(checkpoint, "search"), settings)
        steps = settings.epochs * objective.steps_per_epoch
        self._pace = Pace(objective, self.experiment.batch_size, first)
        self._watch.lap("start" if checkpoint is None else RESTART)
        with closing(engine), objective.fed(range(first, steps), self.experiment.data.workers):
            for step in search.run(settings, first):
                self._watch.lap("search")
                if step.updated:
                    kept = kept_counts(search.keep).items()
                    self.rows.log("masks", step.step + 1, {name: float(count) for name, count in kept})
                extra = {f"kept/{name}": share for name, share in kept_share(self.sites, search.keep).items()}
                for report in self._after(step, "search", steps, {"ratio": step.ratio} | extra):
                    yield replace(report, kept=site_shares(self.sites, search.keep))
                leaving = self._leaving()
                if leaving or self._checkpoint_due(step.step + 1, steps):
                    self._save(
                        engine, "search", step.step + 1, stacked(named("search", search.state()), self.host.device)
                    )
                if leaving:
                    self._give_back()
            weights = engine.weights()
        return search.keep, folded_state(weights, self.sites, gates.tensors, search.keep)

    def _retrain(
        self, sliced: PreTrainedModel, keep: Keep, checkpoint: Checkpoint | None
    ) -> Generator[Progress, None, PreTrainedModel]:
        settings = self.experiment.retrain
        # a method without a search spends the same epochs in all
        epochs = settings.epochs + (0 if self.method.searches else self.experiment.search.epochs)
        model = sliced.to(self.host.device)
        self.task.start(model)
        engine = self._engine(model, settings.learning_rate)
        shared = named("keep", {name: mask.cpu() for name, mask in keep.items()})
        first = 0
        if checkpoint is None:
            self._save(engine, "retrain", 0, shared)
        else:
            first = checkpoint.step
            self._load(engine, checkpoint)
        objective = self._objective()
        per_epoch = objective.steps_per_epoch
        steps = epochs * per_epoch
        self._pace = Pace(objective, self.experiment.batch_size, first)
        self._watch.lap("start" if checkpoint is None else RESTART)
        with closing(engine), objective.fed(range(first, steps), self.experiment.data.workers):
            for step in retrain(engine, objective, settings, epochs, first):
                self._watch.lap("retrain")
                done = step.step + 1
                yield from self._after(step, "retrain", steps, {})
                if done % per_epoch == 0:
                    yield self._validated(engine, sliced, done // per_epoch, (done, steps))
                # after the validation, so that a resumed point has its rows
                leaving = self._leaving()
                if leaving or self._checkpoint_due(done, steps):
                    self._save(engine, "retrain", done, shared)
                if leaving:
                    self._give_back()
            return self._plain(engine, sliced)

    def _engine(self, model: torch.nn.Module, learning_rate: float) -> Engine:
        # ranks drop out different units; everything before is equal on all of them
        seed_rank(self.experiment.seed)
        add_drop_path(model, self.prepared.spec, self.experiment.model.drop_path)
        settings = EngineSettings(self.experiment.optimizer, learning_rate, self.experiment.precision)
        return self.host.engine(model, settings)

    def _objective(self) -> Objective:
        settings, steps = self.experiment.distill, self.experiment.epoch_steps
        if settings.weight == 0:
            return Objective(self.task, epoch_steps=steps)
        return Objective(self.task, settings, copy.deepcopy(self.prepared.model).to(self.host.device), steps)

    def _plain(self, engine: Engine, sliced: PreTrainedModel) -> PreTrainedModel:
        """The engine's model as it would be exported: whole, in fp32."""
        plain = type(sliced)(sliced.config)
        plain.load_state_dict(engine.weights())
        return plain.to(self.host.device).eval()

    def _validated(self, engine: Engine, sliced: PreTrainedModel, epochs: int, progress: tuple[int, int]) -> Progress:
        metrics = self.task.evaluate(self._plain(engine, sliced), "validation")
        self._watch.lap("evaluate")
        engine.model.train()
        done, steps = progress
        named_metrics = {f"validation/{name}": value for name, value in metrics.items()}
        self.rows.log("retrain", done, named_metrics)
        self._pace.restart(done)
        validation = (epochs, metrics[self.task.headline])
        return Progress("retrain", done, steps, named_metrics, validation)

    def _after(self, step: Step, phase: str, steps: int, extra: dict[str, float]) -> Iterator[Progress]:
        """Log and report a step when a report is due."""
        done = step.step + 1
        self.facts["losses"] = self.facts.get("losses", {}) | {phase: step.loss}
        if done % self.experiment.report_steps and done != steps:
            return
        metrics = {"loss": step.loss, "learning_rate": step.learning_rate} | self._pace.measured(done) | extra
        self.rows.log(phase, done, metrics)
        yield Progress(phase, done, steps, metrics)

    def _give_back(self) -> NoReturn:
        """Leave all together, when what rank 0 has saved is in the store: the first that leaves ends the replica."""
        self.host.attempt.settle()
        gather(torch.zeros(1, device=self.host.device))
        raise GivenBack

    def _leaving(self) -> bool:
        """Whether any rank has been told to leave; all of them hear it after the same step."""
        told = torch.tensor([self.host.leaving()], dtype=torch.long, device=self.host.device)
        return bool(gather(told).any())

    def _checkpoint_due(self, done: int, steps: int) -> bool:
        every = self.experiment.checkpoint_steps
        return bool(every) and done % every == 0 and done < steps

    def _save(self, engine: Engine, phase: str, step: int, extra: dict[str, Tensor]) -> None:
        """Collect the state on all ranks; rank 0 writes it."""
        tensors = named("weights", engine.weights()) | named("optimizer", engine.optimizer_state())
        tensors |= named("task", {name: value.cpu() for name, value in self.task.state().items()}) | extra
        tensors |= stacked(named("rng", random_state(self.host.device)), self.host.device)
        facts = {"facts": self.facts, "seconds": self._watch.totals} | self._layout()
        if rank() == 0:
            keep = max(KEPT, self.experiment.keep_checkpoints)
            self.host.attempt.save(Checkpoint(phase, step, tensors, facts, self.rows), keep)

    def _layout(self) -> dict[str, int]:
        """What the last bits of sums depend on."""
        return {"world_size": world_size(), "zero_stage": self.experiment.replica.zero_stage}

    def _load(self, engine: Engine, checkpoint: Checkpoint) -> None:
        engine.load(checkpoint.part("weights"), checkpoint.part("optimizer"))
        self.task.load_state(checkpoint.part("task"))
        restore_random_state(checkpoint, self.experiment.seed, self.host.device)


def _resumed(checkpoint: Checkpoint, layout: dict[str, int]) -> Progress:
    """The report with which a point goes on; says so when its results can no longer be repeated to the bit."""
    note = f"goes on from step {checkpoint.step} of its {checkpoint.phase}"
    words = {"world_size": "{} workers instead of {}", "zero_stage": "ZeRO stage {} instead of {}"}
    # of checkpoints that an older version saved the stage is not known
    before = {name: checkpoint.facts.get(name, layout[name]) for name in layout}
    changes = [words[name].format(now, before[name]) for name, now in layout.items() if now != before[name]]
    if changes:
        note += f" with {' and '.join(changes)}: sums in another order, no longer identical to the bit"
    if checkpoint.instead_of:
        note += f"; a later checkpoint was passed over ({checkpoint.instead_of})"
    return Progress(checkpoint.phase, checkpoint.step, 0, note=note)
