"""What runs a model's steps: the protocol, and the plain one of a single process."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from upop_ray.config import Optimizer


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is built for: optimizer, first learning rate, precision."""

    optimizer: Optimizer
    learning_rate: float
    precision: str = "fp32"


class Engine(Protocol):
    """A model with its optimizer, on one process or sharded over many.

    Weights and optimizer state come and go whole, in fp32 and by the model's own names, so that a checkpoint fits any
    number of workers and any ZeRO stage.
    """

    model: nn.Module

    def forward(self, **inputs: Any) -> Any:
        """Run the model."""

    def backward(self, loss: Tensor) -> None:
        """Clear the gradients of the weights and compute those of ``loss``; gates keep accumulating."""

    def step(self, learning_rate: float) -> None:
        """Average gradients over ranks and take one optimizer step."""

    @contextmanager
    def gathered(self) -> Iterator[Mapping[str, Tensor]]:
        """All parameters by name, whole, as long as it is entered."""

    def weights(self) -> dict[str, Tensor]:
        """State dict of the model, whole, in fp32 (or the model's own wider dtype), on the CPU of every rank."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """``{parameter}/{entry}`` -> tensor, whole, on the CPU of every rank."""

    def load(self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`weights` and :meth:`optimizer_state` gave, whatever the number of workers then."""

    def close(self) -> None:
        """Free what the engine holds; its model is not to be used any more."""


EngineFactory = Callable[[nn.Module, EngineSettings], Engine]


def build_optimizer(parameters: Any, settings: EngineSettings) -> torch.optim.Optimizer:
    """The optimizer of an experiment; every parameter decays, as published."""
    optimizer = settings.optimizer
    if optimizer.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=settings.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.momentum > 0,
            weight_decay=optimizer.weight_decay,
        )
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=optimizer.betas,
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay,
    )


class LocalEngine:
    """One process, plain torch; bf16 by autocast with fp32 weights."""

    def __init__(self, model: nn.Module, settings: EngineSettings) -> None:
        self.model = model.train()
        self._optimizer = build_optimizer(model.parameters(), settings)
        self._clipping = settings.optimizer.gradient_clipping
        self._low_precision = settings.precision == "bf16"

    def forward(self, **inputs: Any) -> Any:
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._low_precision):
            return self.model(**inputs)

    def backward(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if self._clipping:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clipping)
        self._optimizer.step()

    @contextmanager
    def gathered(self) -> Iterator[Mapping[str, Tensor]]:
        yield dict(self.model.named_parameters())

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        state = {}
        for name, parameter in self.model.named_parameters():
            for entry, value in self._optimizer.state.get(parameter, {}).items():
                if value is not None:
                    state[f"{name}/{entry}"] = torch.as_tensor(value).detach().cpu().clone()
        return state

    def load(self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(dict(weights))
        parameters = dict(self.model.named_parameters())
        for key, value in optimizer_state.items():
            name, _, entry = key.rpartition("/")
            self._optimizer.state[parameters[name]][entry] = value.clone().to(parameters[name].device)

    def close(self) -> None:
        self._optimizer.zero_grad()
