"""An experiment: strict, validated, from YAML plus ``a.b=c`` overrides."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from upop_ray.errors import ConfigError
from upop_ray.problems import first_problem

MethodName = Literal["upop", "unified", "mask", "magnitude", "magnitude_uniform", "random"]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

#: beside the package in a checkout, inside it when installed
_EXPERIMENTS = (Path(__file__).parent.parent / "experiments", Path(__file__).parent / "experiments")
BUILTIN_EXPERIMENT = next((f for f in _EXPERIMENTS if f.is_dir()), _EXPERIMENTS[0]) / "builtin_clip.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(_Part):
    """The dense model: its family and a folder, a hub name, or ``builtin:clip``."""

    family: Literal["clip"] = "clip"
    path: str = "builtin:clip"


class Data(_Part):
    """The data set: a folder or URI of Parquet shards, or ``builtin:emoji``."""

    path: str = "builtin:emoji"


class Momentum(_Part):
    """The momentum encoder and queue of the published recipe (ALGORITHM, section 3)."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.995
    queue_size: Positive = 57_600
    teacher_weight: Annotated[float, Field(ge=0, le=1)] = 0.4
    enqueue: Literal["momentum", "online"] = "momentum"
    #: modules that the momentum encoder takes over instead of averaging (published CLIP: the last text norm)
    shared: tuple[str, ...] = ()

    @field_validator("shared", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Task(_Part):
    """What is trained and measured; ``in_batch`` contrasts the global batch, ``momentum`` is the published ITC."""

    name: Literal["retrieval"] = "retrieval"
    loss: Literal["in_batch", "momentum"] = "in_batch"
    momentum: Momentum = Momentum()


class Optimizer(_Part):
    """Optimizer of both phases; the learning rate stands with the phase."""

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 0.05
    betas: tuple[Finite, Finite] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    #: largest gradient norm; 0 does not clip, as published
    gradient_clipping: NonNegativeFloat = 0.0

    @field_validator("betas", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Regularisation(_Part):
    """Prices added to standardised scores, per kind and per tower; positive removes more there, 0 is as published."""

    attention: Finite = 0.0
    mlp: Finite = 0.0
    vision: Finite = 0.0
    language: Finite = 0.0
    cross: Finite = 0.0


class GatePenalty(_Part):
    """L1 weights of the gates, per kind: they train the gates of ``mask``; elsewhere they change no mask."""

    attention: NonNegativeFloat = 0.0
    mlp: NonNegativeFloat = 0.0


class Search(_Part):
    """The mask search."""

    method: MethodName = "upop"
    ratio: Ratio = 0.5
    budget: Literal["params", "macs", "units"] = "params"
    score: Literal["signed", "absolute"] = "signed"
    epochs: Positive = 1
    interval: Positive = 10
    learning_rate: PositiveFloat = 1e-4
    floor: Positive = 1
    regularisation: Regularisation = Regularisation()
    penalty: GatePenalty = GatePenalty()
    #: learning rate of the gates, used by method ``mask`` alone
    gate_learning_rate: PositiveFloat = 1e-2


class Retrain(_Part):
    """Training of the sliced model; ``schedule`` says whether the cosine falls each step or each epoch (published)."""

    epochs: Positive = 1
    learning_rate: PositiveFloat = 1e-4
    minimum_learning_rate: NonNegativeFloat = 0.0
    schedule: Literal["step", "epoch"] = "step"


class Replica(_Part):
    """The workers that together hold one model."""

    workers: Positive = 1
    cpus_per_worker: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    zero_stage: Literal[0, 1, 2, 3] = 2
    backend: Literal["gloo", "nccl"] = "gloo"
    #: seconds a worker may take to start, and to go from one report to the next
    timeout: PositiveFloat = 600.0
    #: further DeepSpeed settings, merged over ours
    deepspeed: dict[str, Any] = {}

    @model_validator(mode="after")
    def _backend_has_its_device(self) -> "Replica":
        if self.backend == "nccl" and self.gpus_per_worker == 0:
            raise ConfigError(
                "replica.backend", "nccl needs replica.gpus_per_worker of at least 1, got 0", "use gloo on CPUs"
            )
        return self


class EarlyStopping(_Part):
    """Successive halving on the validation metric, among points of the same ratio and method only."""

    grace_epochs: Positive = 1
    reduction: Annotated[int, Field(ge=2)] = 4


class Sweep(_Part):
    """What varies: a grid, and draws from ``space`` for each of its cells."""

    ratios: tuple[Ratio, ...] = (0.5,)
    methods: tuple[MethodName, ...] = ("upop",)
    seeds: tuple[int, ...] = (0,)
    #: dotted setting -> {uniform: [low, high]} | {log_uniform: [low, high]} | {choice: [...]}
    space: dict[str, dict[str, list[Any]]] = {}
    samples: Positive = 1
    early_stopping: EarlyStopping | None = None
    #: how often a point whose worker died is taken up again
    retries: Annotated[int, Field(ge=0)] = 2
    #: points at once; 0 means as many as the resources allow
    max_concurrent: Annotated[int, Field(ge=0)] = 0

    @field_validator("ratios", "methods", "seeds", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("ratios", "methods", "seeds")
    @classmethod
    def _some_and_distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("is empty; name at least one")
        if len(set(value)) < len(value):
            raise ValueError("names a value twice; each value is one column of the grid")
        return value


class Experiment(_Part):
    """One experiment: a point, and the sweep around it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "experiment"
    store: str = "results"
    seed: int = 0
    #: examples of one step over all workers
    batch_size: Positive = 128
    precision: Literal["fp32", "bf16"] = "fp32"
    #: steps between checkpoints; 0 keeps only those between phases
    checkpoint_steps: Annotated[int, Field(ge=0)] = 50
    #: steps between two reports of loss and throughput
    report_steps: Positive = 10
    model: Model = Model()
    data: Data = Data()
    task: Task = Task()
    optimizer: Optimizer = Optimizer()
    search: Search = Search()
    retrain: Retrain = Retrain()
    replica: Replica = Replica()
    sweep: Sweep = Sweep()

    @model_validator(mode="after")
    def _batch_is_shared_evenly(self) -> "Experiment":
        if self.batch_size % self.replica.workers:
            raise ConfigError(
                "batch_size",
                f"{self.batch_size} is not a multiple of replica.workers {self.replica.workers}",
                f"use a multiple of {self.replica.workers}",
            )
        if self.task.loss == "momentum" and self.task.momentum.queue_size % self.batch_size:
            raise ConfigError(
                "task.momentum.queue_size",
                f"{self.task.momentum.queue_size} is not a multiple of batch_size {self.batch_size}",
                f"use a multiple of {self.batch_size}",
            )
        return self


def load(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and apply overrides.

    :param path: a YAML file; None is the built-in experiment
    :param overrides: ``a.b=c``, the value read as YAML
    :raises ConfigError: with the field, the value and the cure
    """
    values = _read_yaml(Path(path) if path is not None else BUILTIN_EXPERIMENT)
    for override in overrides:
        field, separator, text = override.partition("=")
        if not separator or not field:
            raise ConfigError(override, "is not an override", "write setting=value, for example search.ratio=0.5")
        set_field(values, field, _parse_value(field, text))
    return parse(values)


def parse(values: Mapping[str, Any]) -> Experiment:
    """Validate plain values into an experiment.

    :raises ConfigError: names the first wrong field
    """
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise first_problem(error, Experiment) from error


def replaced(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """A copy with dotted settings replaced, validated again."""
    values = experiment.model_dump(mode="json")
    for field, value in changes.items():
        set_field(values, field, value)
    return parse(values)


def set_field(values: dict[str, Any], field: str, value: Any) -> None:
    """Set the dotted ``field`` inside nested dicts.

    :raises ConfigError: the path goes through something that is not a group of settings
    """
    *groups, last = field.split(".")
    for depth, group in enumerate(groups):
        inner = values.setdefault(group, {})
        if inner is None:
            inner = values[group] = {}
        if not isinstance(inner, dict):
            parent = ".".join(groups[: depth + 1])
            raise ConfigError(field, f"{parent} is a value, not a group of settings", f"set {parent} itself")
        values = inner
    values[last] = value


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number; YAML 1.1 reads it as text."""


_SIGNS = list("-+0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), _SIGNS)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror})", "give the path of an experiment YAML"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(str(path), f"is not YAML: {problem}", "correct the file") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(str(path), f"holds a {type(values).__name__}", "an experiment is a mapping of settings")
    return values or {}


def _parse_value(field: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(field, f"{text!r} is not a YAML value", "quote it or correct it") from error
