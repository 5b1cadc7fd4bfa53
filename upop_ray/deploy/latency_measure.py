"""Measures the latency of a model beside the dense one."""

import gc
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from upop_ray.deploy.latency import Case, Latency, Row, row_of
from upop_ray.deploy.latency_backends import BACKENDS, Runner, variant_of
from upop_ray.deploy.latency_rounds import interleaved
from upop_ray.errors import ConfigError
from upop_ray.models.spec import ModelSpec


@dataclass(frozen=True)
class Plan:
    """What is measured.

    :param seconds: of measuring a case, without warming up
    :raises ConfigError: that is nothing
    """

    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    device: torch.device
    seconds: float

    def __post_init__(self) -> None:
        if not any(_cases(self)):
            given = " ".join(self.precisions)
            raise ConfigError("--precisions", f"onnx is measured in fp32, got {given}", "use fp32 or another backend")


def measure(
    spec: ModelSpec,
    models: Sequence[PreTrainedModel],
    plan: Plan,
    say: Callable[[Case], None] = lambda case: None,
) -> Latency:
    """Times of every case of the plan; one that a backend cannot run is a row that says why.

    :param models: the sliced one, and the dense one where there is one
    :param say: is told of each case before it is measured
    """
    before = os.getloadavg()[0]
    rows = tuple(row for case in _cases(plan) for row in _rows(spec, models, plan, case, say))
    sizes = [spec.size(model) for model in models]
    names = ("sliced", "dense")[: len(models)]
    return Latency(
        device_name(plan.device),
        torch.get_num_threads(),
        (before, os.getloadavg()[0]),
        _versions(),
        {name: size.macs for name, size in zip(names, sizes, strict=True)},
        {name: size.parameters for name, size in zip(names, sizes, strict=True)},
        rows,
    )


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def _cases(plan: Plan) -> Iterator[tuple[str, str]]:
    for backend in plan.backends:
        for precision in plan.precisions:
            # its kernels of other precisions convert, or are missing
            if backend != "onnx" or precision == "fp32":
                yield backend, precision


def _rows(
    spec: ModelSpec,
    models: Sequence[PreTrainedModel],
    plan: Plan,
    case: tuple[str, str],
    say: Callable[[Case], None],
) -> Iterator[Row]:
    backend, precision = case
    cases = [Case(backend, precision, batch) for batch in plan.batches]
    try:
        runners = [BACKENDS[backend](variant_of(spec, model, precision, plan.device)) for model in models]
    except Exception as error:  # noqa: BLE001 - whatever a backend cannot do is said in its row
        yield from (Row(each, problem=_reason(error)) for each in cases)
        return
    for each in cases:
        say(each)
        yield _row(each, runners, plan.seconds)
    del runners
    gc.collect()


def _row(case: Case, runners: Sequence[Runner], seconds: float) -> Row:
    try:
        times = interleaved([runner(case.batch) for runner in runners], seconds)
    except Exception as error:  # noqa: BLE001 - whatever a backend cannot do is said in its row
        return Row(case, problem=_reason(error))
    return row_of(case, times[0], times[1] if len(times) > 1 else None)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("upop_ray", "torch", "transformers", "onnxruntime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
