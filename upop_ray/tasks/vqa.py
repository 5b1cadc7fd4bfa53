"""Visual question answering: weighted answers in training, a fixed answer list or generation in evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upop_ray.config import Experiment
from upop_ray.config import Vqa as Settings
from upop_ray.data.batches import training_order
from upop_ray.data.images import preprocessing_of
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.questions import QuestionBatches, QuestionSplit, answer_list, load_questions
from upop_ray.data.shards import ShardedDataset
from upop_ray.data.views import BLIP_VIEWS
from upop_ray.tasks.evaluation import SPLITS, device_of, over_ranks, row_batches
from upop_ray.tasks.language import (
    Tokens,
    cleaned,
    decoded,
    next_tokens,
    padded,
    predictions,
    require_room,
    text_losses,
    tokenised,
)
from upop_ray.tasks.spec import Loss, StatelessTask
from upop_ray.tasks.vqa_accuracy import accuracies

#: questions at once in evaluation
_QUESTIONS = 32
#: answers that are decoded at once when they are ranked; their logits are the largest thing in memory
_ANSWERS = 512
#: beams of generated answers, as published
_BEAMS = 3


@dataclass(frozen=True)
class VqaBatch:
    """Questions of a rank, and all their answers one after the other.

    :param pixel_values: float32 (b, 3, S, S)
    :param rows: int64 (answers,), the question of each answer
    :param weights: float32 (answers,)
    """

    pixel_values: Tensor
    questions: Tokens
    answers: Tokens
    rows: Tensor
    weights: Tensor


class Vqa(StatelessTask):
    """Question answering by models with the forward, ``encode``, ``decode`` and ``generate`` of family blip_vqa."""

    headline = "accuracy"

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        """Read the training split and the answer list.

        :raises ConfigError: a batch exceeds the data, or a length the model's positions
        :raises DataError: a shard is missing or corrupt, or there is no answer list to rank
        """
        assert isinstance(experiment.task, Settings)
        self.settings = experiment.task
        self.dataset = dataset
        config: Any = model.config
        text = config.text_config
        for field in ("question_length", "answer_length"):
            require_room(f"task.{field}", getattr(self.settings, field), text.max_position_embeddings)
        self.tokenizer = processor.tokenizer
        # published vocabularies end in [DEC], [ENC]
        self.question_start, self.answer_start = text.vocab_size - 1, text.bos_token_id
        preprocessing = preprocessing_of(processor, config.vision_config.image_size)
        self.views = BLIP_VIEWS[self.settings.augmentation](preprocessing)
        training = read_once(load_questions, dataset, "train")
        order = training_order(dataset, training, experiment.batch_size, experiment.seed)
        self.batches = QuestionBatches(training, order, self.views)
        self.choices = answer_list(dataset) if self.settings.inference == "rank" else ()

    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> VqaBatch:
        drawn = self.batches.batch(cursor, rank, world_size)
        heaviest = [question.heaviest(self.settings.answers_per_question) for question in drawn.questions]
        pairs = [pair for answers in heaviest for pair in answers]
        counts = torch.tensor([len(answers) for answers in heaviest])
        return VqaBatch(
            drawn.pixel_values,
            self._questions([question.text for question in drawn.questions]),
            self._answers([answer for answer, _ in pairs]),
            torch.arange(len(counts)).repeat_interleave(counts),
            torch.tensor([weight for _, weight in pairs]),
        )

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: VqaBatch, cursor: Cursor) -> Loss:
        rows, targets = self._predicted(forward, batch, device_of(model))
        losses = text_losses(rows, targets, self.settings.label_smoothing)
        # every rank has the same number of questions
        return Loss((batch.weights.to(losses) * losses).sum() / len(batch.pixel_values), rows)

    def logits(self, teacher: nn.Module, batch: VqaBatch) -> Tensor:
        return self._predicted(teacher, batch, device_of(teacher))[0]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        data = read_once(load_questions, self.dataset, SPLITS[split])
        return accuracies(self.answers(model, data), data)

    @torch.no_grad()
    def answers(self, model: nn.Module, data: QuestionSplit) -> list[str]:
        """The model's answer to each question; ranks share the work."""
        model.eval()
        parts = row_batches(len(data), _QUESTIONS)

        def prepared(rows: range) -> tuple[Tensor, Tokens]:
            return self._inputs(data, rows)

        if self.settings.inference == "rank":
            choices = self._answers(self.choices).to(device_of(model))
            chosen = over_ranks(parts, prepared, lambda asked: self._ranked(model, *asked, choices))
            return [self.choices[index] for index in chosen.tolist()]
        tokens = over_ranks(parts, prepared, lambda asked: self._generated(model, *asked))
        return decoded(self.tokenizer, tokens, (self.answer_start, self.question_start))

    def _predicted(self, forward: Callable[..., Any], batch: VqaBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Logits of the answers' tokens, and the targets that they are among."""
        questions, answers = batch.questions.to(device), batch.answers.to(device)
        output = forward(
            pixel_values=batch.pixel_values.to(device),
            input_ids=questions.ids,
            attention_mask=questions.mask,
            answer_ids=answers.ids,
            answer_mask=answers.mask,
            answer_rows=batch.rows.to(device),
        )
        targets = next_tokens(answers)
        return predictions(output.logits, targets), targets

    def _ranked(self, model: Any, pixel_values: Tensor, questions: Tokens, choices: Tokens) -> Tensor:
        """Numbers of the chosen answers, int64 (b,): the first token chooses candidates, the whole answer one of them.

        What is lowest is the smoothed loss that the model was trained on, as published.
        """
        pixels, questions = pixel_values.to(device_of(model)), questions.to(device_of(model))
        states = model.encode(pixel_values=pixels, input_ids=questions.ids, attention_mask=questions.mask)
        start = choices.ids[:1, :1].expand(len(pixels), 1)
        first = model.decode(states, questions.mask, start, torch.ones_like(start))[:, 0]
        count = min(self.settings.candidates, len(choices.ids))
        candidates = first[:, choices.ids[:, 1]].topk(count, 1).indices
        losses = torch.empty_like(candidates, dtype=first.dtype).flatten()
        # answers of about the same length together, so that little is spent on padding
        for pairs in torch.split(choices.mask.sum(1)[candidates.flatten()].argsort(), _ANSWERS):
            question = pairs // count
            answers = choices[candidates.flatten()[pairs]].trimmed()
            losses[pairs] = self._losses(model, states[question], questions.mask[question], answers)
        chosen: Tensor = candidates.gather(1, losses.view(candidates.shape).argmin(1, keepdim=True)).squeeze(1)
        return chosen

    def _losses(self, model: Any, states: Tensor, mask: Tensor, answers: Tokens) -> Tensor:
        targets = next_tokens(answers)
        rows = predictions(model.decode(states, mask, answers.ids, answers.mask), targets)
        return text_losses(rows, targets, self.settings.label_smoothing)

    def _generated(self, model: Any, pixel_values: Tensor, questions: Tokens) -> Tensor:
        pixels, questions = pixel_values.to(device_of(model)), questions.to(device_of(model))
        length = self.settings.answer_length
        ids = model.generate(
            input_ids=questions.ids,
            pixel_values=pixels,
            attention_mask=questions.mask,
            num_beams=_BEAMS,
            min_length=1,
            max_length=length,
            do_sample=False,
        )
        return padded(ids, length, self.tokenizer.pad_token_id)

    def _inputs(self, data: QuestionSplit, rows: range) -> tuple[Tensor, Tokens]:
        questions = data.questions(np.array(rows))
        # several questions are about one image, which is decoded once
        images, places = np.unique([question.image for question in questions], return_inverse=True)
        pixels = self.views.evaluation(data.pictures, images)[torch.from_numpy(places)]
        return pixels, self._questions([question.text for question in questions])

    def _questions(self, texts: Sequence[str]) -> Tokens:
        cleaned_texts = [cleaned(text) for text in texts]
        return tokenised(self.tokenizer, cleaned_texts, self.settings.question_length, self.question_start)

    def _answers(self, texts: Sequence[str]) -> Tokens:
        return tokenised(self.tokenizer, texts, self.settings.answer_length, self.answer_start)
