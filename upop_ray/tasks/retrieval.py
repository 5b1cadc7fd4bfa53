"""Image-text retrieval: contrastive training, recall at 1, 5 and 10 both ways."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.config import Experiment
from upop_ray.data.image_text import (
    Cursor,
    EvaluationPairs,
    ImageTextBatch,
    ImageTextBatches,
    ImageTextSplit,
    Preprocessing,
    evaluation_pairs,
    fixed_length,
    load_image_text,
)
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import ConfigError
from upop_ray.tasks.collective import gather, rank, world_size
from upop_ray.tasks.contrastive import Features, MomentumContrast, in_batch_loss, temperature
from upop_ray.tasks.recall import recalls
from upop_ray.tasks.spec import Gathered

EVALUATION_BATCH = 128
#: split names of the shards
SPLITS = {"validation": "val", "test": "test"}


class Retrieval:
    """Retrieval for dual encoders that answer with ``image_embeds`` and ``text_embeds`` (CLIPModel and its like)."""

    headline = "r_mean"

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training and evaluation splits.

        :raises ConfigError: the model is no dual encoder, or a batch exceeds the data
        :raises DataError: a shard is missing or corrupt
        """
        if not (hasattr(model, "logit_scale") and hasattr(model, "text_projection")):
            raise ConfigError(
                "task.name", "retrieval needs a dual encoder, model.family has none", "use model.family: clip"
            )
        self.momentum = experiment.task.momentum if experiment.task.loss == "momentum" else None
        self.dataset = dataset
        settings: Any = model.config
        image_size: int = settings.vision_config.image_size
        length: int = settings.text_config.max_position_embeddings
        image_processor = processor.image_processor
        self.preprocessing = Preprocessing(
            image_size, tuple(image_processor.image_mean), tuple(image_processor.image_std)
        )
        self.tokenize = fixed_length(processor.tokenizer, length)
        self.batches = ImageTextBatches(
            read_split(dataset, "train"), self.tokenize, self.preprocessing, experiment.batch_size, experiment.seed
        )
        self._pairs: dict[str, EvaluationPairs] = {}
        self._contrast: MomentumContrast | None = None

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def start(self, model: nn.Module) -> None:
        expose_temperature(model)
        if self.momentum is None:
            return
        previous = self._contrast
        self._contrast = MomentumContrast(model, model.config.projection_dim, self.momentum)  # type: ignore[union-attr, arg-type]
        if previous is not None:
            # the queue goes on from search into retraining, the twin restarts equal to the student (as published)
            self._contrast.load_state(previous.state(), with_twin=False)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> ImageTextBatch:
        return self.batches.batch(cursor.epoch, cursor.index, rank, world_size)

    def prepare(self, gathered: Gathered) -> None:
        if self._contrast is not None:
            with gathered() as online:
                self._contrast.update_twin(online)

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: ImageTextBatch, cursor: Cursor) -> Tensor:
        online, scale = features(forward, batch, _device(model))
        if self._contrast is None:
            return in_batch_loss(online, scale)
        with torch.no_grad():
            twin, _ = features(self._contrast.twin, batch, _device(model))
        ramp = 1.0 if cursor.epoch > 0 else min(1.0, cursor.index / self.steps_per_epoch())
        return self._contrast.loss(online, twin, scale, ramp)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return evaluate_pairs(model, self._evaluation(split))

    def state(self) -> dict[str, Tensor]:
        return {} if self._contrast is None else self._contrast.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self._contrast is not None:
            self._contrast.load_state(state)

    def _evaluation(self, split: str) -> EvaluationPairs:
        if split not in self._pairs:
            examples = read_split(self.dataset, SPLITS[split])
            self._pairs[split] = evaluation_pairs(examples, self.tokenize, self.preprocessing)
        return self._pairs[split]


_SPLITS_READ: dict[tuple[str, str, str], ImageTextSplit] = {}


def read_split(dataset: ShardedDataset, name: str) -> ImageTextSplit:
    """A decoded split, read once in a process: warm replicas go from point to point with it."""
    key = (dataset.root, dataset.content_hash, name)
    if key not in _SPLITS_READ:
        _SPLITS_READ[key] = load_image_text(dataset, name)
    return _SPLITS_READ[key]


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


def features(forward: Callable[..., Any], batch: ImageTextBatch, device: torch.device) -> tuple[Features, Tensor]:
    """Normalised features of a batch, in fp32 where the model computes in less, and exp of the bounded temperature."""
    output = forward(
        pixel_values=batch.pixel_values.to(device),
        input_ids=batch.input_ids.to(device),
        attention_mask=batch.attention_mask.to(device),
    )
    image, text = output.image_embeds, output.text_embeds
    if image.dtype == torch.bfloat16:
        image, text = image.float(), text.float()
    return Features(image, text, batch.concept_ids.to(device)), temperature(output["logit_scale"].to(image.dtype))


@torch.no_grad()
def evaluate_pairs(model: nn.Module, pairs: EvaluationPairs) -> dict[str, float]:
    """Recalls of a dual encoder on all pairs of an evaluation split, in percent; ranks share the encoding."""
    device = _device(model)
    model.eval()
    images = _encoded(pairs.image_batches(EVALUATION_BATCH), lambda x: _image_features(model, x.to(device)))
    texts = _encoded(pairs.text_batches(EVALUATION_BATCH), lambda x: _text_features(model, x, device))
    return recalls(images @ texts.t(), pairs.caption_image.to(images.device))


def _encoded(batches: Any, encode: Callable[[Any], Tensor]) -> Tensor:
    """Features of all batches in order; each rank encodes every world_size-th batch and all ranks get all of them."""
    all_batches = list(batches)
    rounds = -(-len(all_batches) // world_size())
    parts: dict[int, Tensor] = {}
    largest = len(all_batches[0][0]) if isinstance(all_batches[0], tuple) else len(all_batches[0])
    for turn in range(rounds):
        index = turn * world_size() + rank()
        # ranks without a batch of their own encode the last one again, so that all gather together
        encoded = encode(all_batches[min(index, len(all_batches) - 1)])
        count = torch.tensor([len(encoded)], device=encoded.device)
        padded = torch.zeros(largest, encoded.shape[1], dtype=encoded.dtype, device=encoded.device)
        padded[: len(encoded)] = encoded
        gathered, counts = gather(padded).view(-1, largest, encoded.shape[1]), gather(count)
        for other in range(world_size()):
            parts.setdefault(
                min(turn * world_size() + other, len(all_batches) - 1), gathered[other, : int(counts[other])]
            )
    return torch.cat([parts[index] for index in range(len(all_batches))])


def _image_features(model: Any, pixel_values: Tensor) -> Tensor:
    return nn.functional.normalize(model.get_image_features(pixel_values=pixel_values).pooler_output.float(), dim=-1)


def _text_features(model: Any, texts: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
    ids, mask = (part.to(device) for part in texts)
    output = model.get_text_features(input_ids=ids, attention_mask=mask)
    return nn.functional.normalize(output.pooler_output.float(), dim=-1)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
