"""What to try next: the grid's cells in order, with settings drawn by Optuna in each."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from upop_ray.config import Experiment, Sweep
from upop_ray.distributed.checkup import own_versions
from upop_ray.distributed.drawing import Drawing
from upop_ray.distributed.plan import (
    Member,
    cells,
    finished,
    known_members,
    manifests,
    member_of,
    note,
    point_of,
    row_of,
)
from upop_ray.store import PointPaths, Store
from upop_ray.training.checkpoint import last_error

#: how often a draw that some other point has already is drawn again
_REDRAWS = 20
#: hears of a point that is proposed or has ended, with its manifest if it is finished
OnChange = Callable[[Member, dict[str, Any] | None], None]
_STATES = {"stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Proposals(Searcher):
    """A searcher of Ray Tune over one Optuna study (metric up, parameters down).

    What the store holds already is told to the study and not proposed again; points that were begun come first.

    :ivar reused: points of this sweep that were finished before it began
    """

    def __init__(self, experiment: Experiment, store: Store, on_change: OnChange) -> None:
        super().__init__(metric="validation", mode="max")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._experiment, self._store, self._on_change = experiment, store, on_change
        self._distributions = distributions(experiment.sweep)
        self._drawing = Drawing(experiment)
        self._running: dict[str, tuple[Member, optuna.Trial | None]] = {}
        self.members: dict[str, Member] = {}
        self.reused: list[Member] = []
        self._waiting: list[Member] = []
        # in the order in which they were drawn, whatever that of their names is
        known = sorted(known_members(store, experiment), key=lambda member: member.draw)
        # a sampler that starts from the same seed would draw again what an earlier run drew
        sampler = optuna.samplers.TPESampler(seed=experiment.seed + len(known), multivariate=True, constant_liar=True)
        self.study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        self._fill(known)
        self._drawing.announce()

    def remaining(self) -> int:
        """How many points are still to be proposed."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many points have been proposed and have not ended."""
        return len(self._running)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        while self._waiting:
            planned = self._waiting.pop(0)
            member, trial = self._drawn(planned)
            if member is None:
                continue
            self.members[member.hash] = member
            if member.drawn and finished(self._store, member) is not None:
                # drawn before by another sweep
                self._settle(member, trial)
                continue
            self._running[trial_id] = (member, trial)
            note(self._store, self._experiment.name, member)
            self._on_change(member, None)
            point = point_of(self._experiment, member.cell, member.drawn)
            values = {"experiment": point.model_dump(mode="json"), "versions": own_versions()}
            return values | {"label": member.label, "group": member.cell.group}
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a point counts when it has ended."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self._running:
            return
        member, trial = self._running.pop(trial_id)
        state = (result or {}).get("state")
        if error:
            member = replace(member, state="failed", cause=last_error(self._store, PointPaths(member.hash)))
        elif state == "failed":
            member = replace(member, state="failed", cause=(result or {})["cause"])
        elif state != "finished":
            member = replace(member, state="stopped", validation=(result or {}).get("validation"))
        self._settle(member, trial)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store holds what is finished."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep that starts reads the store."""

    def _fill(self, known: Sequence[Member]) -> None:
        """Sort what is known into done and begun, and plan the draws that are missing."""
        fresh = self._missing(known)
        found = manifests(self._store, [*known, *fresh])
        for member in known:
            if member.hash in found or member.state == "stopped":
                self._reuse(member, found.get(member.hash))
            else:
                self._waiting.append(member)
        for member in fresh:
            if member.hash in found:
                # another sweep has computed this very point
                note(self._store, self._experiment.name, member)
                self._reuse(member, found[member.hash])
            else:
                self._waiting.append(member)

    def _missing(self, known: Sequence[Member]) -> list[Member]:
        """Points that the sweep has not proposed yet; those that will be drawn have no hash."""
        there = Counter(member.cell for member in known)
        if not self._distributions:
            return [member_of(self._experiment, cell) for cell in cells(self._experiment) if not there[cell]]
        return [
            Member("", cell, draw)
            for cell in cells(self._experiment)
            for draw in range(there[cell], self._drawing.samples(cell.method))
        ]

    def _reuse(self, member: Member, manifest: dict[str, Any] | None) -> None:
        self.reused.append(member)
        self.members[member.hash] = member
        self._drawing.learn(row_of(member, manifest))
        self.study.add_trial(self._frozen(member, manifest))

    def _drawn(self, planned: Member) -> tuple[Member | None, optuna.Trial | None]:
        """Ask Optuna for a trial in the cell; None when the space has nothing new for it."""
        fixed = self._drawing.fixed(planned.cell.method)
        held = self._drawing.held(planned, self.members.values())
        for given in [fixed | held, fixed] if held else [fixed]:
            free = set(self._distributions) - set(given)
            for _ in range(_REDRAWS if free else 1):
                member, trial = self._asked(planned, given)
                if member.hash == planned.hash or member.hash not in self.members:
                    return member, trial
                self.study.tell(trial, state=TrialState.FAIL)
        return None, None

    def _asked(self, planned: Member, given: Mapping[str, Any]) -> tuple[Member, optuna.Trial]:
        """A point of the cell with the given settings, and others as Optuna has them."""
        self.study.enqueue_trial({**planned.cell.settings(), **given, **planned.drawn})
        trial = self.study.ask(fixed_distributions=self._all_distributions())
        drawn = {name: trial.params[name] for name in self._distributions}
        return member_of(self._experiment, planned.cell, planned.draw, drawn), trial

    def _settle(self, member: Member, trial: optuna.Trial | None) -> None:
        manifest = finished(self._store, member) if member.state in ("proposed", "failed") else None
        if manifest is not None:
            # whatever happened after that
            member = replace(member, state="proposed", cause="")
        elif member.state == "proposed":
            cause = f"it ended without a manifest in {self._store.uri}; see that every node has that store"
            member = replace(member, state="failed", cause=cause)
        self.members[member.hash] = member
        note(self._store, self._experiment.name, member)
        if trial is not None:
            if manifest is not None:
                self.study.tell(trial, values=objectives(manifest))
            else:
                self.study.tell(trial, state=_STATES.get(member.state, TrialState.FAIL))
        self._on_change(member, manifest)
        self._drawing.learn(row_of(member, manifest))
        self._drawing.announce()

    def _frozen(self, member: Member, manifest: dict[str, Any] | None) -> FrozenTrial:
        return create_trial(
            params={**member.cell.settings(), **member.drawn},
            distributions=self._all_distributions(),
            state=TrialState.COMPLETE if manifest else TrialState.PRUNED,
            values=objectives(manifest) if manifest else None,
        )

    def _all_distributions(self) -> dict[str, BaseDistribution]:
        return grid_distributions(self._experiment.sweep) | self._distributions


def objectives(manifest: dict[str, Any]) -> list[float]:
    """What the study optimises: the validation metric (up) and the parameters (down)."""
    return [manifest["metrics"]["validation"][manifest["headline"]], float(manifest["parameters"])]


def grid_distributions(sweep: Sweep) -> dict[str, BaseDistribution]:
    """Distributions of the grid's columns, whose values are always given."""
    return {
        "search.ratio": FloatDistribution(min(sweep.ratios), max(sweep.ratios)),
        "search.method": CategoricalDistribution(list(sweep.methods)),
        "seed": CategoricalDistribution(list(sweep.seeds)),
    }


def distributions(sweep: Sweep) -> dict[str, BaseDistribution]:
    """Optuna distributions of the space; two whole numbers as bounds draw whole numbers."""
    result: dict[str, BaseDistribution] = {}
    for name, rule in sweep.space.items():
        kind, values = next(iter(rule.items()))
        if kind == "choice":
            result[name] = CategoricalDistribution(values)
        elif all(isinstance(value, int) for value in values):
            result[name] = IntDistribution(low=values[0], high=values[1], log=kind == "log_uniform")
        else:
            result[name] = FloatDistribution(low=values[0], high=values[1], log=kind == "log_uniform")
    return result
