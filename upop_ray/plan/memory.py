"""Memory of a worker and size of checkpoints, from the engine's settings."""

import copy
import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from transformers import PreTrainedModel

from upop_ray.config import Experiment, Momentum
from upop_ray.plan.activations import fused_attention, saved_bytes
from upop_ray.plan.subject import Subject
from upop_ray.plan.training_step import has_twin, passes, stand_in_loss
from upop_ray.training.checkpoint import KEPT

FLOAT, LOW = 4, 2
#: DeepSpeed's own default of ``reduce_bucket_size``, in elements
_BUCKET = 500_000_000


def worker_memory(subject: Subject) -> dict[str, int]:
    """Bytes on the device of a worker during the search, by what they are for.

    Activations are an estimate: what autograd keeps of the forward passes on the worker's part of a batch, with fused
    attention. Not counted: temporaries of kernels, libraries, fragmentation.
    """
    experiment, parameters = subject.experiment, subject.size.parameters
    memory = engine_memory(parameters, experiment)
    if has_twin(experiment):
        memory["momentum encoder"] = FLOAT * parameters
        momentum, width = experiment.task.momentum, _width(subject)  # type: ignore[union-attr]
        memory["queue"] = queue_bytes(momentum, width)
        # the loss keeps a copy of the queue's features, and both ways log-probabilities and targets of each row
        rows = experiment.batch_size // experiment.replica.workers
        memory["contrast with it (estimate)"] = momentum.queue_size * FLOAT * (2 * width + 4 * rows)
    if experiment.distill.weight:
        memory["teacher"] = FLOAT * parameters
    # a value and an accumulated gradient for each
    memory["gates"] = 2 * FLOAT * sum(site.units for site in subject.sites)
    memory["activations (estimate)"] = activation_bytes(subject)
    return memory


def engine_memory(parameters: int, experiment: Experiment) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer of a worker under ZeRO (Rajbhandari et al., 2020, section 5).

    bf16 under ZeRO 1 to 3 keeps bf16 weights and gradients and fp32 masters; ZeRO 0 keeps fp32 weights, of which
    autocast makes bf16 copies. DeepSpeed keeps masters in fp32 training, too.
    """
    stage, workers = experiment.replica.zero_stage, experiment.replica.workers
    low = experiment.precision == "bf16"
    element = LOW if low and stage > 0 else FLOAT
    memory = {
        "weights": parameters * element // (workers if stage == 3 else 1),
        "gradients": parameters * element // (workers if stage >= 2 else 1),
        "optimizer": parameters * FLOAT * _optimizer_entries(experiment) // (workers if stage >= 1 else 1),
    }
    if stage == 0:
        return memory | ({"bf16 copies of weights": LOW * parameters} if low else {})
    zero = experiment.replica.deepspeed.get("zero_optimization", {})
    # on a CPU only what is written of the bucket takes memory
    reserved = int(zero.get("reduce_bucket_size", _BUCKET)) if experiment.replica.gpus_per_worker else 0
    return memory | {
        "fp32 masters": FLOAT * parameters // workers,
        "gradient bucket": element * (reserved or min(parameters, _BUCKET)),
    }


def queue_bytes(momentum: Momentum, width: int) -> int:
    """Image and text features, and an int64 identity, for each place of the queue."""
    return momentum.queue_size * (2 * width * FLOAT + 8)


def activation_bytes(subject: Subject) -> int:
    """Estimate of what a worker keeps of its part of a batch for the backward pass, with gates or without.

    In bf16 everything counts as bf16; autocast (ZeRO 0) keeps norms and losses in fp32, which is a little more.
    """
    experiment = subject.experiment
    rows = experiment.batch_size // experiment.replica.workers
    model = copy.deepcopy(subject.shape).train()
    inputs = passes(experiment, subject.spec, model, rows)
    if experiment.precision == "bf16":
        model.to(torch.bfloat16)
        inputs = [{k: v.bfloat16() if v.is_floating_point() else v for k, v in each.items()} for each in inputs]

    def compute() -> list[torch.Tensor]:
        return [stand_in_loss(model(**each)) for each in inputs]

    with fused_attention():
        return saved_bytes(compute, held=[*model.parameters(), *model.buffers()])


def checkpoint_bytes(subject: Subject) -> int:
    """A checkpoint of the search, which is written whole and in fp32: weights, optimizer, and the task's own state."""
    experiment, parameters = subject.experiment, subject.size.parameters
    total = FLOAT * parameters * (1 + _optimizer_entries(experiment))
    if has_twin(experiment):
        total += FLOAT * parameters + queue_bytes(experiment.task.momentum, _width(subject))  # type: ignore[union-attr]
    return total


def store_bytes(subject: Subject, at_once: int, missing: Mapping[float, int]) -> int:
    """What the store has to take at most: checkpoints of the points that run, and the models of all.

    :param at_once: points that run at once; each has its newest checkpoints and the one that is being written
    :param missing: ratio -> points that are still to be computed
    """
    kept = subject.experiment.keep_checkpoints
    models = sum(math.ceil(FLOAT * subject.left(ratio)[0]) * count for ratio, count in missing.items())
    checkpoints = at_once * (max(KEPT, kept) + 1) + kept * sum(missing.values())
    return checkpoints * checkpoint_bytes(subject) + models


def _optimizer_entries(experiment: Experiment) -> int:
    """Numbers that the optimizer keeps of each weight."""
    optimizer = experiment.optimizer
    if optimizer.name == "adamw":
        return 2
    return 1 if optimizer.momentum else 0


@lru_cache(maxsize=1)
def _width(subject: Subject) -> int:
    """Width of the features that a queue holds."""
    model: PreTrainedModel = subject.shape
    with torch.no_grad():
        output = model(**passes(subject.experiment, subject.spec, model, 1)[0])
    return int(output["image_embeds"].shape[-1])
