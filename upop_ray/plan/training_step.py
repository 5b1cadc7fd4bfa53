"""The forward passes of a training step, with random inputs: what they compute, and a loss as large as the task's."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.config import Experiment, RerankedRetrieval, Retrieval
from upop_ray.models.spec import ModelSpec, eager_attention
from upop_ray.plan.subject import Subject
from upop_ray.pruning.cost import count_macs

#: matched in training for each example: the pair, a wrong caption, a wrong image
_PAIRS = 3
#: a backward pass computes the gradients of inputs and of weights, each as much as the forward pass
_FORWARD_AND_BACKWARD = 3


def passes(experiment: Experiment, spec: ModelSpec, model: nn.Module, rows: int) -> list[dict[str, Tensor]]:
    """Keyword arguments of the forward passes of one training step on ``rows`` examples, on the model's device.

    Texts have the lengths that MACs are counted with.
    """
    example = spec.example(model)
    if experiment.task.name != "retrieval_itm":
        return [_repeated(example, rows)]
    matched = {"image_states": example.pop("image_states"), "input_ids": example["input_ids"]}
    return [_repeated(example, rows), _repeated(matched, _PAIRS * rows)]


def has_twin(experiment: Experiment) -> bool:
    """Whether a momentum encoder goes along."""
    task = experiment.task
    return isinstance(task, Retrieval | RerankedRetrieval) and task.loss == "momentum"


def stand_in_loss(output: Any) -> Tensor:
    """Cross entropy in fp32 over what the task's loss is over: logits, matching scores, or similarities."""
    if "logits" in output:
        scores = output["logits"]
    elif output.get("itm_score") is not None:
        scores = output["itm_score"]
    else:
        scores = output["image_embeds"] @ output["text_embeds"].t()
    # texts are (n, tokens, classes), images (n, classes, height, width)
    classes = 2 if scores.dim() == 3 else 1
    return -torch.log_softmax(scores.float(), classes).select(classes, 0).mean()


@dataclass(frozen=True)
class StepMacs:
    """Multiply-accumulates of training on one example.

    :param model: forward and backward passes of the model that is trained
    :param others: forward passes of a momentum encoder and of a teacher
    """

    model: int
    others: int


@lru_cache(maxsize=1)
def step_macs(subject: Subject) -> StepMacs:
    """Count a training step of the dense model.

    The backward pass is taken as twice the forward one; the loss and the optimizer are not counted.
    """
    experiment, model = subject.experiment, subject.shape
    with eager_attention(model):
        forward = [count_macs(model, inputs) for inputs in passes(experiment, subject.spec, model, 1)]
    others = forward[0] if has_twin(experiment) else 0
    others += forward[0] if experiment.distill.weight else 0
    return StepMacs(_FORWARD_AND_BACKWARD * sum(forward), others)


def _repeated(example: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    return {name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in example.items()}
