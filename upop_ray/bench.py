"""Time a sliced model beside the dense one: ``python -m upop_ray.bench MODEL_DIR --against DENSE_DIR``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from upop_ray.errors import ConfigError
from upop_ray.terminal import console, guarded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from upop_ray.deploy.latency import Case, Latency
    from upop_ray.deploy.latency_measure import Plan
    from upop_ray.deploy.latency_models import Target
    from upop_ray.deploy.subject import Place

_HELP = """\
Time forward passes of a model on this device, and of the dense model it was made of beside it: eager, torch.compile
and ONNX Runtime, by precision and size of the batch. Both are measured in turns, so that a change of the machine's
speed meets both; the speed-up is the median over rounds. Do it while nothing else runs."""
_EPILOG = """\
examples:
  python -m upop_ray.bench 3f2a --store results             # a point by the beginning of its hash; dense is known
  python -m upop_ray.bench results/points/HASH/model        # the same
  python -m upop_ray.bench exported --against builtin:clip --batches 1 --backends eager onnx
  python -m upop_ray.bench 3f2a --device cuda --precisions bf16 fp16

The result of a point is stored as points/HASH/latency.json, where reports and model cards find it, unless --against
names another model.
torch.compile needs a C++ compiler, ONNX Runtime needs pip install "upop_ray[export]"; what is missing is said in the
row. Compiling takes most of the time: --backends eager onnx is quick."""
_BACKENDS = ("eager", "compile", "onnx")
_PRECISIONS = ("fp32", "bf16", "fp16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    # torch and transformers take seconds to import, which --help need not wait for
    from upop_ray.deploy.latency import as_json
    from upop_ray.deploy.latency_models import target
    from upop_ray.deploy.latency_table import show
    from upop_ray.tracking import quieten

    quieten()
    with target(options.model, options.store) as found:
        measured = _measured(options, found)
    content = as_json(measured)
    # shown before it is stored: a store that refuses loses no measurement
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        show(measured, console)
    if content["headline"] is None:
        raise ConfigError("--backends", "none of them could be measured here, each for its reason", "use another")
    if found.place is not None:
        said = _stored(found.place, content, options.against)
        # of what --json prints this is no part
        print(said, file=sys.stderr if options.json else sys.stdout)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.bench",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="a model folder, a point's folder, or the hash of a point (or its beginning)")
    parser.add_argument("--store", default="results", help="where a hash is looked up (default: %(default)s)")
    parser.add_argument("--against", metavar="DENSE", help="folder of the dense model, or builtin:NAME")
    parser.add_argument(
        "--batches", nargs="+", type=_positive, default=[1, 8, 32], metavar="N", help="examples a call (1 8 32)"
    )
    parser.add_argument("--precisions", nargs="+", choices=_PRECISIONS, help="default: fp32 bf16, on a GPU also fp16")
    parser.add_argument("--backends", nargs="+", choices=_BACKENDS, default=list(_BACKENDS), help="default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    parser.add_argument(
        "--threads", type=_positive, metavar="N", help="of the CPU (default: the cores of this process)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of measuring for each line of the table (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; times in milliseconds")
    return parser


def _stored(place: "Place", content: dict[str, Any], against: str | None) -> str:
    """Keep the measurement of a point beside it, if it is against what the point was made of; says what was done."""
    if against is not None:
        return f"not stored: measured against {against}; what is stored is against the model the point was made of"
    place.store.write_json(place.paths.latency, content)
    return f"stored in {place.store.path(place.paths.latency)}"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _measured(options: argparse.Namespace, found: "Target") -> "Latency":
    import torch

    from upop_ray.deploy.latency_measure import measure
    from upop_ray.deploy.latency_models import load

    plan = _plan(options)
    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    spec, sliced = load(str(found.folder), found.family)
    dense = _dense(options, found)
    # the progress is not part of what --json prints
    return measure(spec, [sliced, *dense], plan, _silent if options.json else _say)


def _plan(options: argparse.Namespace) -> "Plan":
    from upop_ray.deploy.latency_measure import Plan

    device = _device(options.device)
    if device.type == "cpu" and "fp16" in (options.precisions or ()):
        raise ConfigError("--precisions", "fp16 is for GPUs, the device is the CPU", "use fp32 or bf16")
    precisions = options.precisions or _PRECISIONS[: 3 if device.type == "cuda" else 2]
    return Plan(tuple(options.backends), tuple(precisions), tuple(options.batches), device, options.seconds)


def _device(asked: str | None) -> "torch.device":
    import torch

    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise ConfigError("--device", "cuda asked, torch sees no GPU here", "use cpu")
    return torch.device(asked or ("cuda" if there else "cpu"))


def _dense(options: argparse.Namespace, found: "Target") -> "list[PreTrainedModel]":
    """The dense model to compare with; none for a folder that is measured alone."""
    from upop_ray.config import Model
    from upop_ray.deploy.latency_models import load
    from upop_ray.training.prepared import load_dense

    if options.against is not None:
        return [load(options.against, found.family)[1]]
    return [] if found.dense is None else [load_dense(Model.model_validate(found.dense))[0]]


def _say(case: "Case") -> None:
    console.print(f"measuring {case.backend} {case.precision} batch {case.batch}")


def _silent(case: "Case") -> None:
    """Nothing."""


if __name__ == "__main__":
    guarded(main)
