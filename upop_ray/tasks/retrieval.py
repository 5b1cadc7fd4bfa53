"""Image-text retrieval of dual encoders: contrastive training, recall at 1, 5 and 10 both ways."""

from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.config import Experiment
from upop_ray.data.image_text import EvaluationPairs, ImageTextBatch
from upop_ray.tasks.contrastive import temperature
from upop_ray.tasks.evaluation import BATCH, device_of, over_ranks, row_batches, unchanged
from upop_ray.tasks.image_text import ImageTextRetrieval, in_full
from upop_ray.tasks.recall import recalls


class Retrieval(ImageTextRetrieval):
    """Retrieval for dual encoders that answer with ``image_embeds`` and ``text_embeds`` (CLIPModel and its like)."""

    def text_length(self, experiment: Experiment, model: nn.Module) -> int:
        config: Any = model.config
        return int(config.text_config.max_position_embeddings)

    def start(self, model: nn.Module) -> None:
        expose_temperature(model)
        super().start(model)

    def scale(self, output: Any) -> Tensor:
        return temperature(in_full(output["logit_scale"]))

    def logits(self, teacher: nn.Module, batch: ImageTextBatch) -> Tensor:
        expose_temperature(teacher)
        return super().logits(teacher, batch)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return evaluate_pairs(model, self.pairs(split))


def expose_temperature(model: nn.Module) -> None:
    """Make the model return its ``logit_scale`` with its features.

    Under ZeRO-3 a parameter is whole only inside the forward pass of its module, so the loss cannot read it there.
    """

    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        output["logit_scale"] = module.logit_scale.clone()  # type: ignore[operator, union-attr]
        return output

    if not getattr(model, "_exposes_temperature", False):
        model.register_forward_hook(add)
        model._exposes_temperature = True  # type: ignore[assignment]


@torch.no_grad()
def evaluate_pairs(model: nn.Module, pairs: EvaluationPairs) -> dict[str, float]:
    """Recalls of a dual encoder on all pairs of an evaluation split, in percent; ranks share the encoding."""
    device = device_of(model)
    model.eval()
    images = over_ranks(row_batches(len(pairs)), pairs.images, lambda x: _image_features(model, x.to(device)))
    texts = over_ranks(list(pairs.text_batches(BATCH)), unchanged, lambda x: _text_features(model, x, device))
    return recalls(images @ texts.t(), pairs.caption_image.to(images.device))


def _image_features(model: Any, pixel_values: Tensor) -> Tensor:
    return nn.functional.normalize(model.get_image_features(pixel_values=pixel_values).pooler_output.float(), dim=-1)


def _text_features(model: Any, texts: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
    ids, mask = (part.to(device) for part in texts)
    output = model.get_text_features(input_ids=ids, attention_mask=mask)
    return nn.functional.normalize(output.pooler_output.float(), dim=-1)
