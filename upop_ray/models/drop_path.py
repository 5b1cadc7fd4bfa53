"""Drop path (stochastic depth; Huang et al., ECCV 2016): training without some branches of the vision backbone.

The published recipes train DeiT-S, Segmenter, BLIP-VQA and BLIP-NLVR2 with a rate of 0.1 (ALGORITHM, section 3), and
every BLIP whose vision tower is a ViT-L; text towers, a Segmenter's mask transformer, and CLIP have none.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.models.spec import ModelSpec


@dataclass(frozen=True)
class DropPath:
    """Forward hook of the layer that ends a residual branch: drops the branch of whole examples in training.

    Those that stay are scaled by ``1 / (1 - rate)``. It draws from torch's generator of the branch's device.

    :param rate: probability that an example's branch is dropped, below 1
    """

    rate: float

    def __call__(self, layer: nn.Module, inputs: Any, branch: Tensor) -> Tensor:
        """Of ``branch`` (b, ...), the same shape."""
        if not layer.training:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.dim() - 1), device=branch.device) >= self.rate
        return branch * (kept / (1 - self.rate)).to(branch.dtype)


def add_drop_path(model: nn.Module, spec: ModelSpec, rate: float) -> None:
    """Make a dense, gated or sliced model drop branches of its vision backbone in training, in place.

    Names in state_dict, what is saved, and evaluation stay as they are.

    :param rate: of the last layer; it rises linearly from 0 at the first
    """
    ends = _branch_ends(model, spec)
    last = max([1, *ends])
    for index, layers in ends.items():
        hook = DropPath(rate * index / last)
        for layer in layers:
            if hook.rate:
                layer.register_forward_hook(hook)


def _branch_ends(model: nn.Module, spec: ModelSpec) -> dict[int, list[nn.Module]]:
    """Layer of the backbone -> the linear layers that end its attention and its MLP."""
    ends: dict[int, list[nn.Module]] = {}
    for site in spec.sites(model):
        # a pooling head's MLP is in no numbered layer
        if found := re.fullmatch(rf"{spec.backbone}\.(\d+)\.\w+", site.name):
            ends.setdefault(int(found[1]), []).extend(model.get_submodule(slot.module) for slot in site.consumers)
    return ends
