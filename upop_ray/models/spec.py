"""What the project has to know of a model family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from upop_ray.pruning.site import Keep, Site


@dataclass(frozen=True)
class ModelSpec:
    """A model family as a bag of callables; adding one is one file with one of these.

    :param load: folder or hub name -> (dense model in fp32 and evaluation mode, its processor)
    :param sites: model -> its sites, in a fixed order
    :param sliced: (model, its state dict, masks) -> the smaller transformers model with the kept weights
    :param example: model -> keyword arguments of a forward pass on one example, on the model's device
    :param outputs: (model, keyword arguments) -> what must not change when the model is sliced
    :param paper_attention_cost: weight of an attention unit under ``budget: units``, where an MLP unit weighs 1
    """

    load: Callable[[Path | str], tuple[PreTrainedModel, Any]]
    sites: Callable[[nn.Module], tuple[Site, ...]]
    sliced: Callable[[nn.Module, Mapping[str, Tensor], Keep], PreTrainedModel]
    example: Callable[[nn.Module], dict[str, Tensor]]
    outputs: Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, ...]]
    paper_attention_cost: int
