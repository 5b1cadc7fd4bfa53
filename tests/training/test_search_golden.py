"""The whole search of the published code on a tiny CLIP, reproduced by our loop, loss, gates and ranking."""

import pytest
import torch
from torch import Tensor, nn

from tests.golden_clip import FACTS, arrays, golden_model
from upop_ray.config import Momentum, Optimizer, Search
from upop_ray.data.image_text import ImageTextBatch
from upop_ray.data.order import Cursor
from upop_ray.models.clip import SPEC
from upop_ray.pruning.compress import largest_difference
from upop_ray.pruning.cost import count_parameters, unit_costs
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.methods import METHODS
from upop_ray.pruning.ranking import Ranking
from upop_ray.pruning.site import kept_counts
from upop_ray.tasks.contrastive import MomentumContrast
from upop_ray.tasks.retrieval import Retrieval, expose_temperature
from upop_ray.training.engine import EngineSettings, LocalEngine
from upop_ray.training.objective import Objective
from upop_ray.training.search import MaskSearch


class GoldenRetrieval(Retrieval):
    """The retrieval task on the golden batches instead of a data set."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs = arrays("clip_inputs")
        self.momentum = Momentum(queue_size=48, enqueue="online", shared=("text_model.final_layer_norm",))
        self.ramp_steps = self.steps_per_epoch()
        expose_temperature(model)
        self._contrast = MomentumContrast(model, 32, self.momentum)
        start = arrays("clip_state_init")
        self._contrast.image_queue.copy_(start["image_queue"].t())
        self._contrast.text_queue.copy_(start["text_queue"].t())

    def steps_per_epoch(self) -> int:
        return 6

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> ImageTextBatch:
        pixels, ids = self.inputs[f"images/{cursor.index}"], self.inputs[f"tokens/{cursor.index}"]
        return ImageTextBatch(pixels, ids, torch.ones_like(ids), self.inputs[f"idx/{cursor.index}"])


def golden_search(run: str) -> tuple[MaskSearch, Search]:
    facts = FACTS["runs"][run]
    model = golden_model(getattr(torch, facts["dtype"].removeprefix("torch.")))
    task = GoldenRetrieval(model)
    sites = SPEC.sites(model)
    gates = Gates(model, sites)
    gates.attach(model)
    penalty = {"attention": facts["w_sp_attn"], "mlp": facts["w_sp_mlp"]}
    settings = Search.model_validate(
        {"budget": "units", "epochs": 2, "interval": 2, "learning_rate": facts["lr"], "penalty": penalty}
    )
    optimizer = Optimizer(name="sgd", weight_decay=0.0)
    engine = LocalEngine(model, EngineSettings(optimizer, facts["lr"]))
    ranking = Ranking(sites, unit_costs(model, sites, "units", SPEC.paper_attention_cost), published=True)
    return MaskSearch(engine, gates, Objective(task), METHODS["upop"], ranking), settings


def outputs(model: nn.Module, dtype: torch.dtype) -> tuple[Tensor, ...]:
    inputs = arrays("clip_inputs")
    with torch.no_grad():
        return SPEC.outputs(
            model.eval(), {"pixel_values": inputs["eval_images"].to(dtype), "input_ids": inputs["eval_tokens"]}
        )


def test_dense_forward_equals_published() -> None:
    expected = arrays("clip_forward")
    model = golden_model()
    _, _, logits = outputs(model, torch.float64)
    assert (logits - expected["alpha1/logits"]).abs().max() < 1e-12


def test_search_in_fp64_gives_the_published_masks_losses_and_gradients() -> None:
    expected = arrays("clip_search_fp64_sgd_p50")
    search, settings = golden_search("fp64_sgd_p50")
    update = 0
    for step in search.run(settings):
        assert step.loss == pytest.approx(expected["loss_ita"][step.step].item(), abs=1e-9)
        for name, score in search.gates.scores().items():
            assert (score - expected[f"grad_after_backward/{name}"][step.step]).abs().max() < 1e-9, (step.step, name)
        if step.step in expected["update_steps"]:
            assert step.ratio == pytest.approx(expected["update_pi"][update].item(), abs=1e-15)
            for name, gate in search.gates.tensors.items():
                alpha = expected[f"alpha_after_update/{name}"][update]
                assert torch.equal(search.keep[name], alpha == 1), (step.step, name)
                assert (gate - alpha).abs().max() < 1e-6
            update += 1
    assert update == 7
    assert kept_counts(search.keep) == FACTS["runs"]["fp64_sgd_p50"]["kept"]


def test_sliced_model_equals_the_masked_one_of_the_published_search() -> None:
    expected = arrays("clip_search_fp64_sgd_p50")
    search, settings = golden_search("fp64_sgd_p50")
    for _ in search.run(settings):
        pass
    masked = outputs(search.engine.model, torch.float64)
    assert (masked[2] - expected["masked/logits"]).abs().max() < 1e-9
    search.gates.detach(search.engine.model)
    sliced = SPEC.sliced(search.engine.model, search.engine.weights(), search.keep)
    assert count_parameters(sliced) == FACTS["runs"]["fp64_sgd_p50"]["params_online_after"]
    assert largest_difference(outputs(sliced, torch.float64), masked) < 1e-12


def test_search_in_fp32_keeps_the_published_counts() -> None:
    search, settings = golden_search("fp32_sgd_p50")
    for _ in search.run(settings):
        pass
    assert kept_counts(search.keep) == FACTS["runs"]["fp32_sgd_p50"]["kept"]
