"""Contrastive losses: against torch's cross entropy, and two processes against one on the global batch."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import normalize

from tests.contrast import in_batch_loss
from tests.ranks import Ranks
from upop_ray.config import Momentum
from upop_ray.tasks.collective import average, gather, gather_with_gradient, rank, world_size
from upop_ray.tasks.contrastive import Features, MomentumContrast, positives, temperature
from upop_ray.tasks.evaluation import over_ranks

ROWS, WIDTH = 8, 5
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


class TwoTowers(nn.Module):
    """A linear layer for each modality, and the logarithm of the scale."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image, self.text = nn.Linear(6, WIDTH), nn.Linear(4, WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.double()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, batch: dict[str, Tensor]) -> Features:
        embeds = (functional.normalize(tower(batch[name]), dim=1) for name, tower in self.towers().items())
        return Features(*embeds, batch["identity"])

    def towers(self) -> dict[str, nn.Linear]:
        return {"image": self.image, "text": self.text}


def own_batch(seed: int) -> dict[str, Tensor]:
    """This rank's rows of the global batch, in which some examples share their identity across the ranks."""
    generator = torch.Generator().manual_seed(seed)
    batch = {
        "image": torch.randn(ROWS, 6, generator=generator, dtype=torch.float64),
        "text": torch.randn(ROWS, 4, generator=generator, dtype=torch.float64),
        "identity": torch.tensor([3, 1, 4, 1, 5, 3, 2, 3]),
    }
    rows = ROWS // world_size()
    return {name: value[rank() * rows : (rank() + 1) * rows] for name, value in batch.items()}


def averaged(model: nn.Module) -> dict[str, Tensor]:
    return {name: average(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def in_batch() -> tuple[Tensor, dict[str, Tensor]]:
    model = TwoTowers()
    loss = in_batch_loss(model(own_batch(1)), temperature(model.logit_scale))
    loss.backward()
    return average(loss.detach()), averaged(model)


def momentum(enqueue: str) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Three steps, so that the queue of 16 goes round once."""
    torch.manual_seed(0)
    model = TwoTowers()
    contrast = MomentumContrast(model, WIDTH, Momentum(queue_size=16, decay=0.5, enqueue=enqueue, shared=("text",)))
    losses = []
    for step in range(3):
        batch = own_batch(step)
        contrast.update_twin(dict(model.named_parameters()))
        with torch.no_grad():
            twin = contrast.twin(batch)
        loss = contrast.loss(model(batch), twin, temperature(model.logit_scale), ramp=step / 2)
        loss.backward()
        losses.append(average(loss.detach()))
        with torch.no_grad():
            for name, gradient in averaged(model).items():
                model.get_parameter(name).sub_(0.1 * gradient)
    return losses, averaged(model), contrast.state()


def collectives() -> dict[str, Any]:
    rows = torch.arange(2.0)[:, None] + 10 * rank()
    rows.requires_grad_()
    everything = gather_with_gradient(rows)
    # each rank weighs row i with i and itself with rank + 1
    ((rank() + 1) * torch.arange(len(everything)) * everything[:, 0]).sum().backward()
    mean = average(torch.tensor([float(rank()), 4.0]))
    return {"gathered": gather(rows), "gradient": rows.grad, "mean": mean, "rank": rank(), "world": world_size()}


def encoded(sizes: list[int]) -> Tensor:
    batches = torch.arange(float(sum(sizes)))[:, None].split(sizes)
    return over_ranks(list(batches), lambda batch: (batch, 2), lambda pair: pair[0] * pair[1])


def test_gathering_is_in_rank_order_and_sums_gradients(two_ranks: Ranks) -> None:
    first, second = two_ranks.run(collectives)
    for number, answer in enumerate((first, second)):
        assert (answer["rank"], answer["world"]) == (number, 2)
        assert answer["gathered"].flatten().tolist() == [0, 1, 10, 11]
        assert answer["mean"].tolist() == [0.5, 4.0]
    # weights 1 and 2 of the ranks together, times the row's number
    assert first["gradient"].flatten().tolist() == [0, 3] and second["gradient"].flatten().tolist() == [6, 9]


def test_without_a_process_group_nothing_is_gathered() -> None:
    answer = collectives()
    assert (answer["rank"], answer["world"]) == (0, 1)
    assert answer["gathered"].flatten().tolist() == [0, 1] and answer["gradient"].flatten().tolist() == [0, 1]


def test_in_batch_loss_of_two_processes_is_that_of_one(two_ranks: Ranks) -> None:
    loss, gradients = in_batch()
    for other_loss, other_gradients in two_ranks.run(in_batch):
        torch.testing.assert_close(other_loss, loss, **TIGHT)
        torch.testing.assert_close(other_gradients, gradients, **TIGHT)


@pytest.mark.parametrize("enqueue", ["momentum", "online"])
def test_momentum_loss_of_two_processes_is_that_of_one(two_ranks: Ranks, enqueue: str) -> None:
    losses, gradients, state = momentum(enqueue)
    assert int(state["position"]) == 3 * ROWS - 16
    for other_losses, other_gradients, other_state in two_ranks.run(momentum, enqueue):
        torch.testing.assert_close(other_losses, losses, **TIGHT)
        torch.testing.assert_close(other_gradients, gradients, **TIGHT)
        torch.testing.assert_close(other_state, state, **TIGHT)


@pytest.mark.parametrize("sizes", [[3], [3, 3], [3, 2], [3, 3, 1], [3, 3, 3, 3, 2]])
def test_encoding_on_two_ranks_gives_all_rows_in_order(two_ranks: Ranks, sizes: list[int]) -> None:
    expected = torch.arange(float(sum(sizes)))[:, None] * 2
    assert torch.equal(encoded(sizes), expected)
    assert all(torch.equal(answer, expected) for answer in two_ranks.run(encoded, sizes))


def test_in_batch_loss_is_torchs_cross_entropy() -> None:
    model, batch = TwoTowers(), own_batch(1)
    features, scale = model(batch), model.logit_scale.exp()
    same = (batch["identity"][:, None] == batch["identity"]).double()
    targets = same / same.sum(1, keepdim=True)
    logits = scale * features.image @ features.text.t()
    expected = (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.t(), targets)) / 2
    # the targets are fp32 whatever the features are, as published: a third is not exact
    torch.testing.assert_close(in_batch_loss(features, scale), expected, rtol=1e-7, atol=0)


def test_distinct_identities_give_the_loss_of_clip() -> None:
    model, batch = TwoTowers(), own_batch(1)
    features = model(batch | {"identity": torch.arange(ROWS)})
    logits, labels = features.image @ features.text.t(), torch.arange(ROWS)
    expected = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.t(), labels)) / 2
    torch.testing.assert_close(in_batch_loss(features, torch.tensor(1.0)), expected, **TIGHT)


def test_positives_share_their_weight() -> None:
    weights = positives(torch.tensor([7, 8]), torch.tensor([7, 8, 7, -100]))
    assert weights.tolist() == [[0.5, 0, 0.5, 0], [0, 1, 0, 0]]


def test_the_temperature_is_bounded_and_keeps_its_gradient() -> None:
    for value, expected in ((2.0, 2.0), (9.0, 4.6052), (-1.0, 0.0)):
        logit_scale = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        scale = temperature(logit_scale)
        scale.backward()
        assert scale.item() == pytest.approx(torch.tensor(expected, dtype=torch.float64).exp().item())
        # as if the parameter itself had been clamped before the step
        assert logit_scale.grad.item() == pytest.approx(scale.item())


def test_the_twin_is_a_moving_average_of_the_online_model() -> None:
    model = TwoTowers()
    start = copy.deepcopy(model)
    contrast = MomentumContrast(model, WIDTH, Momentum(queue_size=ROWS, decay=0.75, shared=("text",)))
    with torch.no_grad():
        model.image.weight.add_(4.0)
        model.text.weight.add_(4.0)
    contrast.update_twin(dict(model.named_parameters()))
    torch.testing.assert_close(contrast.twin.image.weight, start.image.weight + 1.0)
    assert torch.equal(contrast.twin.text.weight, model.text.weight)
    assert not any(parameter.requires_grad for parameter in contrast.twin.parameters())


def test_a_restored_contrast_goes_on_the_same() -> None:
    torch.manual_seed(0)
    model, settings = TwoTowers(), Momentum(queue_size=16)
    contrast, fresh = (MomentumContrast(model, WIDTH, settings) for _ in range(2))
    with torch.no_grad():
        contrast.twin.image.weight.add_(1.0)
        contrast.loss(model(own_batch(0)), contrast.twin(own_batch(0)), torch.tensor(2.0), 1.0)
    fresh.load_state(contrast.state())
    losses = []
    for each in (contrast, fresh):
        with torch.no_grad():
            losses.append(each.loss(model(own_batch(1)), each.twin(own_batch(1)), torch.tensor(2.0), 1.0))
    assert torch.equal(*losses)
    # retraining takes the queue and starts its own twin
    student = MomentumContrast(model, WIDTH, settings)
    student.load_state(contrast.state(), with_twin=False)
    assert torch.equal(student.image_queue, contrast.image_queue) and student.position == contrast.position
    assert torch.equal(student.twin.image.weight, model.image.weight)


def test_pairs_of_one_concept_are_positives_of_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (normalize(torch.randn(3, 4, generator=generator), dim=-1) for _ in range(2))
    logits = 2 * images @ texts.T
    # concepts 0 0 1: the first two rows spread their target over two columns
    rows, columns = logits.log_softmax(1), logits.log_softmax(0)
    by_image = -(rows[:2, :2].sum() / 2 + rows[2, 2]) / 3
    by_text = -(columns[:2, :2].sum() / 2 + columns[2, 2]) / 3
    loss = in_batch_loss(Features(images, texts, torch.tensor([0, 0, 1])), torch.tensor(2.0))
    torch.testing.assert_close(loss, (by_image + by_text) / 2)
