"""ONNX: a module and its inputs become a file, which is compared with the module in ONNX Runtime."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.errors import ConfigError
from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.compress import largest_difference

#: largest difference between a module and its file, of the largest output, or of 1; operators are fused otherwise
PARITY_TOLERANCE = 1e-4
#: weights of this many bytes do not fit into the file with the graph and go into one beside it
_LARGEST_FILE = 2**31 - 2**24


@dataclass(frozen=True)
class Graph:
    """A model, or a part of one, that becomes one file.

    :param name: of the file, without its ending
    :param module: takes the inputs in their order and gives a tensor for each output
    :param inputs: name -> an example with at least two rows; the first dimension may be another in use
    :param outputs: names
    :param varying: inputs whose second dimension may be another too
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    varying: tuple[str, ...] = ()


class _Outputs(nn.Module):
    """A model as a module of positional inputs, with the outputs that its family compares."""

    def __init__(self, spec: ModelSpec, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self._spec, self._names = model, spec, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self._spec.outputs(self.model, dict(zip(self._names, inputs, strict=True)))


def whole(spec: ModelSpec, model: nn.Module, inputs: Mapping[str, Tensor], outputs: int) -> Graph:
    """The full forward pass of a model as one graph, for example to time it.

    :param inputs: keyword arguments of the forward pass, at least two rows each
    :param outputs: how many tensors ``spec.outputs`` gives
    """
    names = tuple(f"output{index}" for index in range(outputs))
    return Graph("model", _Outputs(spec, model, tuple(inputs)), inputs, names)


def require_onnx() -> None:
    """Make sure that the packages of the extra ``export`` are there.

    :raises ConfigError: one is not; the message names it and the cure
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError("ONNX", f"package {error.name} is not installed", 'pip install "upop_ray[export]"') from error


def to_onnx(graph: Graph, path: Path) -> None:
    """Write a graph to ``path``; its first dimensions are free.

    :raises ConfigError: a package is missing
    """
    require_onnx()
    varies = {0: torch.export.Dim.DYNAMIC}
    shapes = {name: varies | ({1: torch.export.Dim.DYNAMIC} if name in graph.varying else {}) for name in graph.inputs}
    module = graph.module.eval()
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            tuple(graph.inputs.values()),
            path,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # parameters of the module are positional, or all in one
            dynamic_shapes=(tuple(shapes.values()),) if isinstance(module, _Outputs) else tuple(shapes.values()),
            dynamo=True,
            external_data=size > _LARGEST_FILE,
            verbose=False,
        )


def session(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU.

    :param threads: 0 is as many as the runtime chooses
    :raises ConfigError: a package is missing
    """
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def parity(graphs: Sequence[Graph], path: Path) -> float:
    """Largest difference between the file at ``path`` and its module, of the largest output or of 1; NaN if any is.

    :param graphs: the same graph with the inputs to compare on
    """
    runtime, differences = session(path), []
    # an input of which only the shape matters is none of the file's
    taken = {entry.name for entry in runtime.get_inputs()}
    for graph in graphs:
        inputs = {name: value.numpy() for name, value in graph.inputs.items() if name in taken}
        found = tuple(torch.from_numpy(value) for value in runtime.run(list(graph.outputs), inputs))
        expected = graph.module(*graph.inputs.values())
        expected = (expected,) if isinstance(expected, Tensor) else expected
        largest = max(1.0, *(value.abs().max().item() for value in expected))
        differences.append(largest_difference(expected, found) / largest)
    return torch.tensor(differences, dtype=torch.float64).max().item()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
