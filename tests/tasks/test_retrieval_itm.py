"""BLIP retrieval: hard negatives, the matching loss on one and two ranks, evaluation against ranking everything."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from tests.contrast import in_batch_loss
from tests.ranks import Ranks
from tests.tasks.texts import QUESTION, experiment, processor, tiny_model, write_dataset
from upop_ray.data.order import Cursor, Use, generator
from upop_ray.data.shards import open_dataset
from upop_ray.errors import ConfigError
from upop_ray.models.blip.retrieval import BlipRetrieval
from upop_ray.tasks.collective import average, rank, world_size
from upop_ray.tasks.contrastive import Features
from upop_ray.tasks.recall import recalls
from upop_ray.tasks.retrieval_itm import RetrievalItm, as_match, evaluate_reranked, hard_negatives, reranked

NAMES = ("red cat", "blue cat", "red dog", "blue dog", "red bird", "blue bird")
#: the matching loss is computed in fp32, whatever the model computes in
TIGHT = {"rtol": 1e-6, "atol": 1e-7}


def rows(count: int, captions: bool) -> list[dict[str, Any]]:
    return [
        {"concept": name, "label": name, "tags": ["big"], "captions": [f"a {name}", f"big {name}"] if captions else []}
        for name in NAMES[:count]
    ]


def task(folder: Path, **settings: Any) -> RetrievalItm:
    splits = {"train": rows(6, False), "val": rows(5, True), "test": rows(4, True)}
    exists = (folder / "manifest.json").exists()
    dataset = open_dataset(str(folder)) if exists else write_dataset(folder, splits)
    made = experiment({"name": "retrieval_itm", "text_length": 8, "loss": "in_batch", **settings})
    return RetrievalItm(made, dataset, processor(), tiny_model(BlipRetrieval))


def loss_and_gradients(folder: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Of this rank's part of the first batch, averaged over the ranks."""
    model, retrieval = tiny_model(BlipRetrieval), task(Path(folder))
    batch = retrieval.batch(Cursor(), rank(), world_size())
    batch = type(batch)(batch.pixel_values.double(), batch.input_ids, batch.attention_mask, batch.identity)
    loss = retrieval.loss(model, model, batch, Cursor()).value
    loss.backward()
    gradients = {name: average(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return average(loss.detach()), gradients


def test_two_ranks_have_the_loss_and_gradients_of_one(tmp_path: Path, two_ranks: Ranks) -> None:
    loss, gradients = loss_and_gradients(str(tmp_path))
    assert {"temperature", "itm_head.weight", "vision_proj.weight"} <= set(gradients)
    for other_loss, other_gradients in two_ranks.run(loss_and_gradients, str(tmp_path)):
        torch.testing.assert_close(other_loss, loss, **TIGHT)
        torch.testing.assert_close(other_gradients, gradients, **TIGHT)


def test_the_loss_is_the_contrast_and_the_matching_of_pairs_and_negatives(tmp_path: Path) -> None:
    model, retrieval = tiny_model(BlipRetrieval).float(), task(tmp_path)
    batch = retrieval.batch(Cursor(), 0, 1)
    found = retrieval.loss(model, model, batch, Cursor()).value
    image, states = model.encode_image(batch.pixel_values)
    text = model.encode_text(batch.input_ids, batch.attention_mask)
    features, scale = Features(image, text, batch.identity), 1 / model.temperature
    draws = torch.from_numpy(generator(Use.NEGATIVES, 0, 0).random((2, 4)))
    wrong_text, wrong_image = hard_negatives(features, scale, draws)
    scores = []
    for image_row, text_row in [
        *((row, row) for row in range(4)),
        *((row, int(wrong_text[row])) for row in range(4)),
        *((int(wrong_image[row]), row) for row in range(4)),
    ]:
        ids = batch.input_ids[text_row : text_row + 1].clone()
        ids[0, 0] = QUESTION
        mask = batch.attention_mask[text_row : text_row + 1]
        scores.append(
            model(image_states=states[image_row : image_row + 1], input_ids=ids, attention_mask=mask).itm_score
        )
    matching = cross_entropy(torch.cat(scores), torch.tensor([1] * 4 + [0] * 8))
    torch.testing.assert_close(found, in_batch_loss(features, scale) + matching, rtol=1e-5, atol=1e-6)


def test_negatives_are_of_another_concept_and_drawn_by_similarity() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (normalize(torch.randn(4, 3, generator=generator), dim=1) for _ in range(2))
    features = Features(image, text, torch.tensor([7, 7, 8, 9]))
    draws = torch.rand(2, 4, generator=generator)
    counts = torch.zeros(4, 4)
    for _ in range(3000):
        draws = torch.rand(2, 4, generator=generator)
        counts[torch.arange(4), hard_negatives(features, torch.tensor(3.0), draws)[0]] += 1
    weights = (3 * image @ text.t()).softmax(1) + 1e-4
    weights[0, :2] = weights[1, :2] = weights[2, 2] = weights[3, 3] = 0
    torch.testing.assert_close(counts / 3000, weights / weights.sum(1, keepdim=True), rtol=0, atol=0.04)
    assert (counts[weights == 0] == 0).all()


@pytest.mark.parametrize("draw", [0.0, 1 - 1e-16])
def test_the_ends_of_the_draw_are_possible_rows(draw: float) -> None:
    image = normalize(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    features = Features(image, image, torch.tensor([0, 1, 2]))
    for chosen in hard_negatives(features, torch.tensor(1.0), torch.full((2, 3), draw, dtype=torch.float64)):
        assert (chosen != torch.arange(3)).all() and (chosen >= 0).all() and (chosen < 3).all()


def test_a_batch_of_one_concept_is_an_error() -> None:
    image = torch.eye(2)
    with pytest.raises(ConfigError, match="batch_size"):
        hard_negatives(Features(image, image, torch.tensor([5, 5])), torch.tensor(1.0), torch.rand(2, 2))


def test_reranking_everything_is_similarity_plus_matching_logit(tmp_path: Path) -> None:
    model, retrieval = tiny_model(BlipRetrieval).float(), task(tmp_path)
    pairs = retrieval.pairs("validation")
    with torch.no_grad():
        image, states = model.encode_image(pairs.images(range(len(pairs))))
        text = model.encode_text(pairs.input_ids, pairs.attention_mask)
        matching = torch.stack(
            [
                model(
                    image_states=state.expand(len(text), -1, -1),
                    input_ids=as_match(pairs.input_ids, QUESTION),
                    attention_mask=pairs.attention_mask,
                ).itm_score[:, 1]
                for state in states
            ]
        )
    expected = recalls(image @ text.t() + matching, pairs.caption_image)
    assert evaluate_reranked(model, pairs, candidates=100, match_token=QUESTION) == expected
    assert retrieval.evaluate(model, "validation") == expected


def evaluated(folder: str) -> dict[str, float]:
    return task(Path(folder), candidates=2).evaluate(tiny_model(BlipRetrieval).float(), "test")


def test_two_ranks_evaluate_as_one(tmp_path: Path, two_ranks: Ranks) -> None:
    expected = evaluated(str(tmp_path))
    assert two_ranks.run(evaluated, str(tmp_path)) == [expected, expected]


def test_only_the_nearest_are_ranked_again() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.6]])
    # the matching logit of query q and item i is 10 q + i
    found = reranked(similarity, 2, lambda pairs: 10.0 * pairs[0] + pairs[1])
    torch.testing.assert_close(found, torch.tensor([[-100.0, 1.9, 2.5], [10.7, -100.0, 12.6]]))


def test_the_momentum_contrast_goes_on_from_search_to_retraining(tmp_path: Path) -> None:
    model = tiny_model(BlipRetrieval).float()
    retrieval = task(tmp_path, loss="momentum", momentum={"queue_size": 8})
    retrieval.start(model)
    first = retrieval.loss(model, model, retrieval.batch(Cursor(), 0, 1), Cursor())
    queue = retrieval.state()["image_queue"].clone()
    retrieval.start(model)
    assert torch.isfinite(first.value) and torch.equal(retrieval.state()["image_queue"], queue)
    assert int(retrieval.state()["position"]) == 4
