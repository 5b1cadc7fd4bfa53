"""What an export has to pass before anybody sees it."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from upop_ray.deploy import outside
from upop_ray.deploy.graphs import graphs
from upop_ray.deploy.onnx import PARITY_TOLERANCE, Graph, parity, to_onnx
from upop_ray.deploy.padded import stock_class
from upop_ray.deploy.samples import samples
from upop_ray.deploy.subject import Subject
from upop_ray.errors import CheckpointError
from upop_ray.pruning.compress import largest_difference

#: of the largest output, or of 1
TOLERANCE = 1e-5
#: examples at once, on which ONNX is compared; it was traced on 2
BATCHES = (1, 3, 8)
_EXAMPLES = 3
_TRACED = 2
_SECONDS = 600
#: how the last part of a traceback begins
_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")


def remote_code_difference(subject: Subject, folder: Path, python: str = sys.executable) -> float:
    """Largest difference between a model and what another process, which cannot import this package, makes of a folder.

    :param python: the interpreter that loads it
    :raises CheckpointError: it does not load there, or computes something else
    """
    inputs = samples(subject.family, subject.model, subject.processor, _EXAMPLES)
    expected = outside.observed(subject.model, subject.processor, inputs)
    found = observed_outside(folder, inputs, python)
    return _accepted(folder, expected, found)


def observed_outside(folder: Path, inputs: Mapping[str, Tensor], python: str = sys.executable) -> dict[str, Tensor]:
    """What :mod:`upop_ray.deploy.outside` writes in a process of its own, with an empty cache of code.

    :raises CheckpointError: the folder does not load there, or takes too long to
    """
    with tempfile.TemporaryDirectory(prefix="upop-outside-") as scratch:
        given, made = Path(scratch) / "inputs.safetensors", Path(scratch) / "outputs.safetensors"
        save_file({name: value.contiguous() for name, value in inputs.items()}, given)
        environment = os.environ | {"HF_MODULES_CACHE": f"{scratch}/modules", "HF_HUB_OFFLINE": "1"}
        # modules beside the file are none of what it may import; where torch and transformers are the environment says
        command = [python, "-P", outside.__file__, str(folder.absolute()), str(given), str(made)]
        try:
            # a question to the user would be waited for, unseen
            ran = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(
                f"{folder}: was not loaded without upop_ray within {_SECONDS} s, so it is not exported; try again "
                "on a machine that is less loaded"
            ) from error
        if ran.returncode:
            raise CheckpointError(f"{folder}: does not load without upop_ray: {_error_of(ran.stderr)}")
        return load_file(made)


def _error_of(output: str) -> str:
    """The error at the end of what a process wrote, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    begin = next((index for index in reversed(range(len(lines))) if _ERROR.match(lines[index])), -2)
    return " ".join(lines[begin:][:2]) or "it wrote nothing"


@torch.no_grad()
def stock_difference(subject: Subject, folder: Path) -> float:
    """Largest difference between a model and the stock class that loads a padded folder.

    :raises CheckpointError: it computes something else
    """
    stock = stock_class(subject.model).from_pretrained(folder, dtype=torch.float32).eval()
    inputs = samples(subject.family, subject.model, subject.processor, _EXAMPLES)
    if subject.family == "blip_retrieval":
        expected, found = _scores(subject.model, stock, inputs)
    else:
        outputs = subject.spec.outputs
        expected, found = outputs(subject.model, inputs), outputs(stock, inputs)
    return _accepted(folder, _numbered(expected), _numbered(found))


def write_onnx(subject: Subject, folder: Path) -> tuple[tuple[Graph, ...], float]:
    """Write the ONNX files of a model into ``folder``, and compare each on real inputs of several batch sizes.

    :returns: what was written, and the largest difference, of the largest output or of 1
    :raises CheckpointError: a file computes something else
    """
    batches = [samples(subject.family, subject.model, subject.processor, count) for count in (_TRACED, *BATCHES)]
    traced, *others = (graphs(subject.family, subject.model, batch) for batch in batches)
    folder.mkdir()
    worst = 0.0
    for index, graph in enumerate(traced):
        path = folder / f"{graph.name}.onnx"
        to_onnx(graph, path)
        difference = parity([each[index] for each in others], path)
        # also where it is no number
        if not difference <= PARITY_TOLERANCE:
            raise CheckpointError(f"{path.name}: ONNX Runtime differs from torch by {difference:.1e}: not exported")
        worst = max(worst, difference)
    return traced, worst


def _scores(
    model: PreTrainedModel, stock: PreTrainedModel, inputs: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Matching scores and similarities of our retrieval model and of transformers', which has another forward."""
    output = model(**inputs)
    given = {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    found = tuple(stock(**given, use_itm_head=matched).itm_score for matched in (True, False))
    return (output.itm_score, output.image_embeds @ output.text_embeds.t()), found


def _numbered(outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(index): output for index, output in enumerate(outputs)}


def _accepted(folder: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """The largest difference, if it may be.

    :raises CheckpointError: it may not
    """
    if {name: value.shape for name, value in expected.items()} != {name: value.shape for name, value in found.items()}:
        raise CheckpointError(f"{folder}: gives {sorted(found)}, the point's model {sorted(expected)}: not exported")
    worst = 0.0
    for name, value in expected.items():
        largest = max(1.0, value.double().abs().max().item())
        difference = largest_difference((value,), (found[name],)) / largest
        if not difference <= TOLERANCE:
            raise CheckpointError(f"{folder}: {name} differs from the point's model by {difference:.1e}: not exported")
        worst = max(worst, difference)
    return worst
