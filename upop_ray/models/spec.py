"""What the project has to know of a model family."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from upop_ray.pruning.cost import count_macs, count_parameters
from upop_ray.pruning.site import Keep, Site


@dataclass(frozen=True)
class Source:
    """Where a dense model is.

    :param path: a transformers folder, or one file in the original format of the family
    :param processor: folder with tokenizer and image processor, where ``path`` holds none
    :param image_size: side of the images in pixels, where it differs from the checkpoint's
    """

    path: Path
    processor: Path | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class Size:
    """Parameters, and multiply-accumulates with a note of what they are counted over."""

    parameters: int
    macs: int
    counted: str


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Compute attention by plain products, since torch's operation counter does not see every fused kernel."""
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


@dataclass(frozen=True)
class ModelSpec:
    """A model family as a bag of callables; adding one is one file with one of these.

    :param tasks: names of the tasks that it serves
    :param load: source -> (dense model in fp32 and evaluation mode, its processor)
    :param sites: model -> its sites, in a fixed order
    :param sliced: (model, its state dict, masks) -> the smaller transformers model with the kept weights
    :param example: model -> keyword arguments of a forward pass on one example, on the model's device
    :param outputs: (model, keyword arguments) -> what must not change when the model is sliced
    :param backbone: first part of the names of the vision backbone's sites, ``{backbone}.{layer}.{kind}``
    :param paper_attention_cost: weight of an attention unit under ``budget: units``, where an MLP unit weighs 1
    :param published: name of a published size -> the model of that size with random weights (also on the meta device)
    :param paper_size: size of a dense model as the paper's tables count it (ALGORITHM, section 5), where that differs
    """

    tasks: tuple[str, ...]
    load: Callable[[Source], tuple[PreTrainedModel, Any]]
    sites: Callable[[nn.Module], tuple[Site, ...]]
    sliced: Callable[[nn.Module, Mapping[str, Tensor], Keep], PreTrainedModel]
    example: Callable[[nn.Module], dict[str, Tensor]]
    outputs: Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, ...]]
    paper_attention_cost: int
    backbone: str = "vision"
    published: Mapping[str, Callable[[], PreTrainedModel]] = field(default_factory=dict)
    paper_size: Callable[[nn.Module], Size] | None = None

    def size(self, model: PreTrainedModel) -> Size:
        """Size of the deployable model: parameters, each counted once, and multiply-accumulates of its example."""
        with eager_attention(model):
            macs = count_macs(model, self.example(model))
        return Size(count_parameters(model), macs, "one example")
