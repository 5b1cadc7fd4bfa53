"""The dense models of the built-in experiments, untrained: `upop_ray.training.pretrain` trains them."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedModel

from upop_ray.data.shards import ShardedDataset
from upop_ray.training.dense.blip import DENSE_BLIP
from upop_ray.training.dense.clip import dense_clip
from upop_ray.training.dense.vision import dense_segmenter, dense_vit

#: built-in name -> builder of an untrained model and its processor from the data set
DENSE: Mapping[str, Callable[[ShardedDataset], tuple[PreTrainedModel, Any]]] = {
    "clip": dense_clip,
    **DENSE_BLIP,
    "vit": dense_vit,
    "segmenter": dense_segmenter,
}
