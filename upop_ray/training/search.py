"""The mask search: train with gates, sum up their gradients, re-rank every interval (UPop, sections 3.1 and 3.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from upop_ray.config import Search
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.methods import Method, searched_masks
from upop_ray.pruning.ranking import Ranking
from upop_ray.pruning.schedule import is_update, removed_gate, removed_ratio
from upop_ray.pruning.site import keep_all
from upop_ray.tasks.collective import average
from upop_ray.training.engine import Engine
from upop_ray.training.objective import Objective


@dataclass(frozen=True)
class Step:
    """One finished training step: its number from 0, loss of this rank, learning rate, and the ratio reached.

    :param updated: the step has changed the masks
    """

    step: int
    loss: float
    learning_rate: float
    ratio: float = 0.0
    updated: bool = False


class MaskSearch:
    """A search over one engine's model; holds what its checkpoint needs.

    :ivar keep: the masks of the last update, all True before the first
    """

    def __init__(self, engine: Engine, gates: Gates, objective: Objective, method: Method, ranking: Ranking) -> None:
        self.engine, self.gates, self.objective = engine, gates, objective
        self.method, self.ranking = method, ranking
        self.keep = keep_all(ranking.sites)
        self._gate_optimizer: torch.optim.Optimizer | None = None

    def run(self, settings: Search, first: int = 0) -> Iterator[Step]:
        """Take the steps from ``first`` on; the gates are 0 or 1 (or learned and 0) after the last one."""
        steps = settings.epochs * self.objective.steps_per_epoch
        if self.method.learns_gates and self._gate_optimizer is None:
            self._gate_optimizer = torch.optim.Adam(self.gates.tensors.values(), lr=settings.gate_learning_rate)
        for step in range(first, steps):
            loss = self._train(step, settings)
            before = self.keep
            self._update(step, steps, settings)
            reached = removed_ratio(step, steps, settings.ratio) if self.method.progressive else 0.0
            yield Step(step, loss, settings.learning_rate, reached, self.keep is not before)

    def scores(self) -> dict[str, Tensor]:
        """Accumulated gradients averaged over ranks, the same bits on each of them."""
        return {name: average(score) for name, score in self.gates.scores().items()}

    def state(self) -> dict[str, Tensor]:
        """Gates, this rank's accumulated gradients, masks and the gates' optimizer, as named tensors."""
        state = {f"gate/{name}": gate.detach().cpu().clone() for name, gate in self.gates.tensors.items()}
        state |= {f"keep/{name}": mask for name, mask in self.keep.items()}
        state |= {f"score/{name}": score.cpu() for name, score in self.gates.scores().items()}
        if self._gate_optimizer is not None:
            for name, gate in self.gates.tensors.items():
                for entry, value in self._gate_optimizer.state.get(gate, {}).items():
                    state[f"adam/{name}/{entry}"] = value.detach().cpu().clone()
        return state

    def load_state(self, state: dict[str, Tensor], settings: Search) -> None:
        """Restore what :meth:`state` gave on this rank."""
        by_part: dict[str, dict[str, Tensor]] = {"gate": {}, "keep": {}, "score": {}, "adam": {}}
        for key, value in state.items():
            part, _, name = key.partition("/")
            by_part[part][name] = value
        self.gates.load(by_part["gate"], by_part["score"])
        self.keep = by_part["keep"]
        if self.method.learns_gates:
            self._gate_optimizer = torch.optim.Adam(self.gates.tensors.values(), lr=settings.gate_learning_rate)
            for key, value in by_part["adam"].items():
                name, _, entry = key.rpartition("/")
                self._gate_optimizer.state[self.gates.tensors[name]][entry] = value.clone()

    def _train(self, step: int, settings: Search) -> float:
        engine, loss = self.engine, self.objective(self.engine, step)
        weights = settings.penalty.model_dump()
        # without weights the penalty is a constant that is not worth its backward pass
        engine.backward(loss + self.gates.penalty(weights).to(loss) if any(weights.values()) else loss)
        engine.step(settings.learning_rate)
        return loss.item()

    @torch.no_grad()
    def _update(self, step: int, steps: int, settings: Search) -> None:
        last = step == steps - 1
        if self._gate_optimizer is not None:
            self._step_gates()
        if self.method.progressive and is_update(step, steps, settings.interval):
            self._rank(removed_ratio(step, steps, settings.ratio))
            self.gates.shrink(self.keep, removed_gate(step, steps, settings.ratio))
        elif last and self.method.learns_gates:
            self._rank(settings.ratio)
            for name, gate in self.gates.tensors.items():
                gate.mul_(self.keep[name].to(gate))
        elif last:
            self._rank(settings.ratio)
            self.gates.shrink(self.keep, 0.0)

    def _rank(self, ratio: float) -> None:
        self.keep = searched_masks(self.gates.tensors, self.scores(), self.method, self.ranking, ratio)

    def _step_gates(self) -> None:
        assert self._gate_optimizer is not None
        for gate in self.gates.tensors.values():
            if gate.grad is not None:
                gate.grad = average(gate.grad)
        self._gate_optimizer.step()
        self._gate_optimizer.zero_grad()
