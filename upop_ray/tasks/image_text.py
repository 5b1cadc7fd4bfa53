"""What retrieval by any family shares: image-text batches, the contrastive loss, evaluation pairs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.config import Experiment, RerankedRetrieval, Retrieval
from upop_ray.data.batches import training_order
from upop_ray.data.image_text import (
    EvaluationPairs,
    FixedLength,
    ImageTextBatch,
    ImageTextBatches,
    evaluation_pairs,
    load_image_text,
)
from upop_ray.data.images import preprocessing_of
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.views import BLIP_VIEWS
from upop_ray.tasks.contrastive import (
    Features,
    MomentumContrast,
    in_batch_logits,
    in_batch_targets,
    soft_cross_entropy,
)
from upop_ray.tasks.evaluation import SPLITS, device_of
from upop_ray.tasks.language import cleaned
from upop_ray.tasks.spec import Gathered, Loss


@dataclass(frozen=True)
class Encoded:
    """What a model says of a rank's batch.

    :param scale: one over the temperature
    :param image_states: (b, tokens, width) for models that match text with them, else None
    """

    features: Features
    scale: Tensor
    image_states: Tensor | None = None


class ImageTextRetrieval(ABC):
    """Contrastive training on image-text pairs; the families differ in how they encode and how they rank."""

    headline = "r_mean"

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training split.

        :raises ConfigError: a batch exceeds the data
        :raises DataError: a shard is missing or corrupt
        """
        task = experiment.task
        assert isinstance(task, Retrieval | RerankedRetrieval)
        self.momentum = task.momentum if task.loss == "momentum" else None
        self.dataset = dataset
        config: Any = model.config
        views = BLIP_VIEWS[task.augmentation](preprocessing_of(processor, config.vision_config.image_size))
        clean = cleaned if task.augmentation == "photographs" else str
        tokenize = FixedLength(processor.tokenizer, self.text_length(experiment, model), clean=clean)
        training = read_once(load_image_text, dataset, "train")
        order = training_order(dataset, training, experiment.batch_size, experiment.seed)
        self.batches = ImageTextBatches(training, order, views, tokenize)
        # soft labels reach their weight over the first epoch, however long that is
        self.ramp_steps = min(experiment.epoch_steps or len(self.batches), len(self.batches))
        self._pairs: dict[str, EvaluationPairs] = {}
        self._contrast: MomentumContrast | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What batches are made of: the twin stays with the process that trains, as do the pairs of evaluation."""
        return self.__dict__ | {"_contrast": None, "_pairs": {}}

    @abstractmethod
    def text_length(self, experiment: Experiment, model: nn.Module) -> int:
        """Tokens that a text is padded and cut to."""

    @abstractmethod
    def scale(self, output: Any) -> Tensor:
        """One over the temperature, from the output of the model."""

    def encode(self, forward: Callable[..., Any], batch: ImageTextBatch, device: torch.device) -> Encoded:
        """Features of a batch, in fp32 where the model computes in bf16."""
        output = forward(
            pixel_values=batch.pixel_values.to(device),
            input_ids=batch.input_ids.to(device),
            attention_mask=batch.attention_mask.to(device),
        )
        image, text = in_full(output["image_embeds"]), in_full(output["text_embeds"])
        features = Features(image, text, batch.identity.to(device))
        return Encoded(features, self.scale(output), output.get("image_states"))

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def start(self, model: nn.Module) -> None:
        if self.momentum is None:
            return
        previous = self._contrast
        self._contrast = MomentumContrast(model, self._width(model), self.momentum)
        if previous is not None:
            # the queue goes on from search into retraining, the twin restarts equal to the student (as published)
            self._contrast.load_state(previous.state(), with_twin=False)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> ImageTextBatch:
        return self.batches.batch(cursor, rank, world_size)

    def prepare(self, gathered: Gathered) -> None:
        if self._contrast is not None:
            with gathered() as online:
                self._contrast.update_twin(online)

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: ImageTextBatch, cursor: Cursor) -> Loss:
        return self.contrast(self.encode(forward, batch, device_of(model)), batch, cursor)

    def contrast(self, online: Encoded, batch: ImageTextBatch, cursor: Cursor) -> Loss:
        """The contrastive loss of encoded examples."""
        logits = in_batch_logits(online.features, online.scale)
        if self._contrast is None:
            return Loss(soft_cross_entropy(logits, in_batch_targets(online.features.identity)), logits)
        with torch.no_grad():
            twin = self.encode(self._contrast.twin, batch, online.scale.device)
        ramp = 1.0 if cursor.epoch > 0 else min(1.0, cursor.index / self.ramp_steps)
        return Loss(self._contrast.loss(online.features, twin.features, online.scale, ramp), logits)

    def logits(self, teacher: nn.Module, batch: ImageTextBatch) -> Tensor:
        encoded = self.encode(teacher, batch, device_of(teacher))
        return in_batch_logits(encoded.features, encoded.scale)

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Recalls in percent, see :func:`upop_ray.tasks.recall.recalls`."""

    def pairs(self, split: str) -> EvaluationPairs:
        """All images of ``validation`` or ``test`` with their captions, read once."""
        if split not in self._pairs:
            examples = read_once(load_image_text, self.dataset, SPLITS[split])
            self._pairs[split] = evaluation_pairs(examples, self.batches.tokenize, self.batches.views)
        return self._pairs[split]

    def state(self) -> dict[str, Tensor]:
        return {} if self._contrast is None else self._contrast.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self._contrast is not None:
            self._contrast.load_state(state)

    def _width(self, model: nn.Module) -> int:
        """Width of the features, found by encoding one example."""
        batch = self.batch(Cursor(), 0, self.batches.order.batch_size)
        with torch.no_grad():
            return self.encode(model, batch, device_of(model)).features.image.shape[1]


def in_full(values: Tensor) -> Tensor:
    """bf16 as fp32, anything else as it is: losses over many candidates need the digits."""
    return values.float() if values.dtype == torch.bfloat16 else values
