"""Image-text retrieval of BLIP: contrast and matching in training, contrast re-ranked by matching in evaluation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from upop_ray.config import Experiment, RerankedRetrieval
from upop_ray.data.image_text import EvaluationPairs, ImageTextBatch
from upop_ray.data.order import Cursor, Use, generator
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import ConfigError
from upop_ray.tasks.collective import gather, gather_with_gradient, rank
from upop_ray.tasks.contrastive import Features
from upop_ray.tasks.evaluation import BATCH, device_of, over_ranks, row_batches, unchanged
from upop_ray.tasks.image_text import Encoded, ImageTextRetrieval, in_full
from upop_ray.tasks.language import require_room
from upop_ray.tasks.recall import recalls
from upop_ray.tasks.spec import Loss

#: bounds of the temperature, as published
TEMPERATURE_BOUNDS = (0.001, 0.5)
#: similarity of pairs that the matching head does not rank, as published
UNRANKED = -100.0


class RetrievalItm(ImageTextRetrieval):
    """Retrieval by a model that answers with ``image_embeds``, ``text_embeds``, ``image_states`` and ``temperature``.

    With ``image_states`` and ``input_ids`` as its input it answers with ``itm_score`` (b, 2).
    """

    def __init__(self, experiment: Experiment, dataset: ShardedDataset, processor: Any, model: nn.Module) -> None:
        super().__init__(experiment, dataset, processor, model)
        assert isinstance(experiment.task, RerankedRetrieval)
        self.candidates, self.seed = experiment.task.candidates, experiment.seed
        config: Any = model.config
        # published vocabularies end in [DEC], [ENC]
        self.match_token: int = config.text_config.vocab_size - 1

    def text_length(self, experiment: Experiment, model: nn.Module) -> int:
        assert isinstance(experiment.task, RerankedRetrieval)
        config: Any = model.config
        require_room("task.text_length", experiment.task.text_length, config.text_config.max_position_embeddings)
        return experiment.task.text_length

    def scale(self, output: Any) -> Tensor:
        temperature = in_full(output["temperature"]).reshape(())
        # the gradient passes as through the published in-place clamp
        return 1 / (temperature + (temperature.clamp(*TEMPERATURE_BOUNDS) - temperature).detach())

    def loss(self, model: nn.Module, forward: Callable[..., Any], batch: ImageTextBatch, cursor: Cursor) -> Loss:
        online = self.encode(forward, batch, device_of(model))
        loss = self.contrast(online, batch, cursor)
        return Loss(loss.value + self._matching_loss(forward, batch, online, cursor), loss.logits)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return evaluate_reranked(model, self.pairs(split), self.candidates, self.match_token)

    def _matching_loss(
        self, forward: Callable[..., Any], batch: ImageTextBatch, online: Encoded, cursor: Cursor
    ) -> Tensor:
        """Whether image and text belong together: each pair, and a hard negative of each image and of each text."""
        assert online.image_states is not None
        device, rows = online.image_states.device, len(batch.input_ids)
        ids, mask = batch.input_ids.to(device), batch.attention_mask.to(device)
        all_ids, all_masks, all_states = gather(ids), gather(mask), gather_with_gradient(online.image_states)
        # drawn for the global batch, so that the world size changes nothing
        draws = generator(Use.NEGATIVES, self.seed, cursor.epoch, cursor.index).random((2, len(all_ids)))
        own = torch.from_numpy(draws[:, rank() * rows : (rank() + 1) * rows]).to(device)
        text_of_image, image_of_text = hard_negatives(online.features, online.scale, own)
        scores = forward(
            image_states=torch.cat([online.image_states, online.image_states, all_states[image_of_text]]),
            input_ids=as_match(torch.cat([ids, all_ids[text_of_image], ids]), self.match_token),
            attention_mask=torch.cat([mask, all_masks[text_of_image], mask]),
        ).itm_score
        labels = torch.cat([torch.ones(rows, dtype=torch.long), torch.zeros(2 * rows, dtype=torch.long)])
        return functional.cross_entropy(scores.float(), labels.to(device))


@torch.no_grad()
def hard_negatives(online: Features, scale: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the global batch, drawn by similarity: a wrong text for each image, and a wrong image for each text.

    :param draws: (2, b), uniform in [0, 1)
    :returns: two int64 (b,)
    :raises ConfigError: all examples of the batch show the same
    """
    other = online.identity[:, None] != gather(online.identity)[None, :]
    if not bool(other.any(1).all()):
        raise ConfigError(
            "batch_size", "a batch showed one concept only, so there are no negatives", "use a larger one"
        )
    chosen = []
    for own, all_others, draw in (
        (online.image, gather(online.text), draws[0]),
        (online.text, gather(online.image), draws[1]),
    ):
        weights = (functional.softmax((scale * own @ all_others.t()).float(), 1) + 1e-4).masked_fill(~other, 0)
        cumulated = weights.cumsum(1)
        target = draw[:, None].to(cumulated) * cumulated[:, -1:]
        # the last possible row, where rounding leads past the end
        last = (other * torch.arange(other.shape[1], device=other.device)).amax(1)
        chosen.append(torch.minimum(torch.searchsorted(cumulated, target, right=True).squeeze(1), last))
    return chosen[0], chosen[1]


def as_match(input_ids: Tensor, match_token: int) -> Tensor:
    """The ids of texts that are matched with an image: [ENC] instead of [CLS] at the start."""
    ids = input_ids.clone()
    ids[:, 0] = match_token
    return ids


@torch.no_grad()
def evaluate_reranked(model: Any, pairs: EvaluationPairs, candidates: int, match_token: int) -> dict[str, float]:
    """Recalls in percent: the nearest by contrast, ranked again by matching logit plus similarity (as published)."""
    device = device_of(model)
    model.eval()
    images = over_ranks(row_batches(len(pairs)), pairs.images, lambda pixels: _packed(model, pixels.to(device)))
    texts = over_ranks(
        list(pairs.text_batches(BATCH)),
        unchanged,
        lambda text: model.encode_text(text[0].to(device), text[1].to(device)).float(),
    )
    width = texts.shape[1]
    similarity = images[:, :width] @ texts.t()
    states = images[:, width:].view(len(images), -1, model.config.vision_config.hidden_size)
    ids, mask = as_match(pairs.input_ids, match_token).to(device), pairs.attention_mask.to(device)

    # rows: (2, b), image and text of each pair
    def match(rows: Tensor) -> Tensor:
        image, text = rows
        score = model(image_states=states[image], input_ids=ids[text], attention_mask=mask[text]).itm_score
        matching: Tensor = score[:, 1].float()
        return matching

    image_to_text = reranked(similarity, candidates, match)
    text_to_image = reranked(similarity.t(), candidates, lambda rows: match(rows.flip(0)))
    return recalls(image_to_text, pairs.caption_image.to(device), text_to_image)


def _packed(model: Any, pixel_values: Tensor) -> Tensor:
    embeds, states = model.encode_image(pixel_values)
    return torch.cat([embeds.float(), states.flatten(1).float()], 1)


def reranked(similarity: Tensor, candidates: int, match: Callable[[Tensor], Tensor]) -> Tensor:
    """Similarities (queries, items) with the matching logit added for the nearest ``candidates`` of each query.

    :param match: int64 (2, n), query and item of each pair -> matching logits (n,)
    """
    nearest = similarity.topk(min(candidates, similarity.shape[1]), 1).indices
    queries = torch.arange(len(nearest), device=nearest.device).repeat_interleave(nearest.shape[1])
    items = nearest.flatten()
    pairs = torch.stack([queries, items])
    scores = over_ranks([pairs[:, start : start + BATCH] for start in range(0, len(items), BATCH)], unchanged, match)
    result = torch.full_like(similarity, UNRANKED)
    result[queries, items] = scores + similarity[queries, items]
    return result
