"""The ways to run a model that are measured: eager torch, torch.compile and ONNX Runtime."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from upop_ray.deploy.latency_rounds import Call
from upop_ray.deploy.onnx import require_onnx, to_onnx, whole
from upop_ray.errors import ConfigError
from upop_ray.models.spec import ModelSpec

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Variant:
    """A model on its device in the precision of a measurement, in evaluation mode."""

    spec: ModelSpec
    model: PreTrainedModel
    precision: str

    @property
    def device(self) -> torch.device:
        """Where it is."""
        found: torch.device = self.model.device
        return found

    def batch(self, size: int) -> dict[str, Tensor]:
        """The family's example so many times, in the precision of the model."""
        example = self.spec.example(self.model)
        rows = {name: value.repeat(size, *[1] * (value.dim() - 1)) for name, value in example.items()}
        dtype = DTYPES[self.precision]
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in rows.items()}

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What is timed."""
        return self.spec.outputs(self.model, batch)


#: size of a batch -> a call on such a batch
Runner: TypeAlias = Callable[[int], Call]


def variant_of(spec: ModelSpec, model: PreTrainedModel, precision: str, device: torch.device) -> Variant:
    """A copy of the model in a precision, on a device."""
    return Variant(spec, copy.deepcopy(model).to(device, DTYPES[precision]).eval(), precision)


def eager(variant: Variant) -> Runner:
    """Operation by operation."""
    return lambda size: _call(variant, variant.forward, size)


def compiled(variant: Variant) -> Runner:
    """Through torch.compile, for each size of the batch by itself."""

    def runner(size: int) -> Call:
        def forward(batch: Mapping[str, Tensor]) -> object:
            return variant.forward(batch)

        # what was compiled is kept by code: with one of its own, a model does not wait for the guards of the other
        own = FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
        return _call(variant, torch.compile(own, dynamic=False), size)

    return runner


def onnx(variant: Variant) -> Runner:
    """In ONNX Runtime on the CPU, in fp32.

    :raises ConfigError: a package is missing, or the precision or device is another
    """
    require_onnx()
    if variant.precision != "fp32" or variant.device.type != "cpu":
        raise ConfigError(
            "backend",
            f"onnx is measured on the CPU in fp32, not {variant.device.type} {variant.precision}",
            "see there",
        )
    session, taken = _session(variant)

    def runner(size: int) -> Call:
        batch = {name: value.numpy() for name, value in variant.batch(size).items() if name in taken}
        return lambda: session.run(None, batch)

    return runner


BACKENDS: Mapping[str, Callable[[Variant], Runner]] = {"eager": eager, "compile": compiled, "onnx": onnx}


def _call(variant: Variant, forward: Callable[[Mapping[str, Tensor]], object], size: int) -> Call:
    batch, on_gpu = variant.batch(size), variant.device.type == "cuda"

    def call() -> None:
        with torch.inference_mode():
            forward(batch)
        if on_gpu:
            torch.cuda.synchronize()

    return call


def _session(variant: Variant) -> tuple[Any, set[str]]:
    """An ONNX Runtime session, and the names of the inputs that it takes."""
    import onnxruntime

    # a dimension that is 1 in the example would be fixed
    batch = variant.batch(2)
    with torch.no_grad():
        graph = whole(variant.spec, variant.model, batch, len(variant.forward(batch)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # its threads would go on spinning in the turn of the other model
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory(prefix="upop-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(graph, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, {entry.name for entry in session.get_inputs()}
