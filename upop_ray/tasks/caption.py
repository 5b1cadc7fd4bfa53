"""Captioning: a language model loss on prompt and caption, evaluation by beam search (ALGORITHM, section 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.config import Caption as Settings
from upop_ray.config import Experiment
from upop_ray.data.batches import training_order
from upop_ray.data.captions import CaptionBatch, CaptionBatches, load_captions
from upop_ray.data.images import preprocessing_of
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.pictures import Pictures
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.views import BLIP_VIEWS
from upop_ray.errors import ConfigError
from upop_ray.tasks.caption_metrics import CaptionScores
from upop_ray.tasks.collective import average
from upop_ray.tasks.evaluation import SPLITS, device_of, over_ranks, row_batches
from upop_ray.tasks.language import Tokens, cleaned, decoded, next_tokens, padded, predictions, text_losses, tokenised
from upop_ray.tasks.spec import Loss, StatelessTask

#: images at once; beams multiply what the decoder holds of them
_IMAGES = 32


class Caption(StatelessTask):
    """Captioning by models that answer with ``logits`` and ``generate`` as BlipForConditionalGeneration does."""

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training split.

        :raises ConfigError: the lengths leave no room for a caption, the headline cannot be computed here, or a batch
            exceeds the data
        :raises DataError: a shard is missing or corrupt
        """
        assert isinstance(experiment.task, Settings)
        self.settings = experiment.task
        self.headline = self.settings.headline
        self.scores = CaptionScores(self.settings.metrics, self.headline)
        self.dataset = dataset
        config: Any = model.config
        self.tokenizer = processor.tokenizer
        # published vocabularies end in [DEC], [ENC]
        self.starts = (config.text_config.bos_token_id, config.text_config.vocab_size - 1)
        self.prompt = self._tokenised([self.settings.prompt]).ids
        # without [SEP]
        self.given = self.prompt.shape[1] - 1
        self._require_room(config.text_config.max_position_embeddings)
        preprocessing = preprocessing_of(processor, config.vision_config.image_size)
        self.views = BLIP_VIEWS[self.settings.augmentation](preprocessing)
        training = read_once(load_captions, dataset, "train")
        order = training_order(dataset, training, experiment.batch_size, experiment.seed)
        self.batches = CaptionBatches(training, order, self.views)

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> CaptionBatch:
        return self.batches.batch(cursor, rank, world_size)

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: CaptionBatch, cursor: Cursor) -> Loss:
        rows, targets = self._predicted(forward, batch, device_of(model))
        total = text_losses(rows, targets, self.settings.label_smoothing).sum()
        # over the tokens of the global batch, of which ranks hold different numbers
        count = torch.tensor(float(len(rows)), dtype=torch.float64, device=rows.device)
        return Loss(total / average(count).to(total), rows)

    def logits(self, teacher: nn.Module, batch: CaptionBatch) -> Tensor:
        return self._predicted(teacher, batch, device_of(teacher))[0]

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        data = read_once(load_captions, self.dataset, SPLITS[split])
        return self.scores(self.captions(model, data.pictures), list(data.captions), device_of(model))

    @torch.no_grad()
    def captions(self, model: nn.Module, pictures: Pictures) -> list[str]:
        """What the model says of images, without the prompt; ranks share the work."""
        model.eval()
        rows = row_batches(len(pictures), _IMAGES)
        views = self.views
        tokens = over_ranks(rows, lambda part: views.evaluation(pictures, part), lambda x: self._generated(model, x))
        return decoded(self.tokenizer, tokens, self.starts)

    def _predicted(
        self, forward: Callable[..., Any], batch: CaptionBatch, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Logits of the tokens that bear loss, and the targets that they are among."""
        texts = [self.settings.prompt + cleaned(caption) for caption in batch.captions]
        tokens = self._tokenised(texts).to(device)
        output = forward(pixel_values=batch.pixel_values.to(device), input_ids=tokens.ids, attention_mask=tokens.mask)
        targets = next_tokens(tokens, self.given)
        return predictions(output.logits, targets), targets

    def _tokenised(self, texts: Sequence[str]) -> Tokens:
        return tokenised(self.tokenizer, texts, self.settings.text_length, self.starts[0])

    def _generated(self, model: Any, pixel_values: Tensor) -> Tensor:
        """Tokens after the prompt, (b, max_length - prompt)."""
        settings, device = self.settings, device_of(model)
        # a copy for each call: transformers writes into it
        prompt = self.prompt.to(device).repeat(len(pixel_values), 1)
        ids = model.generate(
            pixel_values=pixel_values.to(device),
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            num_beams=settings.beams,
            min_length=settings.min_length,
            max_length=settings.max_length,
            do_sample=False,
        )
        return padded(ids, settings.max_length, self.tokenizer.pad_token_id)[:, self.given :]

    def _require_room(self, positions: int) -> None:
        settings = self.settings
        for field, tokens in (("text_length", settings.text_length), ("max_length", settings.max_length)):
            if not self.given + 1 < tokens <= positions:
                raise ConfigError(
                    f"task.{field}",
                    f"got {tokens}, the prompt has {self.given} tokens and the model {positions} positions",
                    f"use {self.given + 2} to {positions}",
                )
        if settings.min_length > settings.max_length:
            raise ConfigError(
                "task.min_length",
                f"{settings.min_length} is more than task.max_length {settings.max_length}",
                f"use at most {settings.max_length}",
            )
