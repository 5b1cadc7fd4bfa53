"""What a forward pass keeps: against a count by hand, and against what torch's allocator says is left of it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from upop_ray import config
from upop_ray.plan.activations import fused_attention, saved_bytes
from upop_ray.plan.memory import activation_bytes
from upop_ray.plan.subject import subject_of
from upop_ray.plan.training_step import passes, stand_in_loss


def test_an_mlp_keeps_its_input_what_goes_into_the_activation_and_what_comes_out() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        x = torch.zeros(3, 4)
    assert saved_bytes(lambda: model(x), model.parameters()) == 4 * (3 * 4 + 3 * 8 + 3 * 8)


def test_weights_count_where_they_are_not_in_memory_anyway() -> None:
    model, x = nn.Linear(4, 8, bias=False), torch.zeros(3, 4, requires_grad=True)
    held = saved_bytes(lambda: model(x), model.parameters())
    assert saved_bytes(lambda: model(x)) == held + 4 * 4 * 8


def test_what_several_operations_keep_is_there_once() -> None:
    x = torch.ones(10, requires_grad=True)
    assert saved_bytes(lambda: (x * x, x.sin(), x.view(2, 5).cos())) == 4 * 10


def test_fused_attention_keeps_no_probabilities() -> None:
    # (2 rows, 3 heads, 50 tokens, 8 wide): query, key, value and output, and a number for each row, head and query
    query, key, value = (torch.zeros(2, 3, 50, 8, device="meta", requires_grad=True) for _ in range(3))
    with fused_attention():
        kept = saved_bytes(lambda: scaled_dot_product_attention(query, key, value))
    assert kept == 4 * (4 * 2 * 3 * 50 * 8 + 2 * 3 * 50)


@pytest.mark.parametrize("name", ["clip", "vit", "blip_retrieval"])
def test_a_models_estimate_is_what_stays_allocated(name: str) -> None:
    rows = 8
    path = config.BUILTIN_EXPERIMENT.with_name(f"builtin_{name}.yaml")
    subject = subject_of(config.load(path, [f"batch_size={rows}"]))
    model = copy.deepcopy(subject.model).train()
    inputs = passes(subject.experiment, subject.spec, model, rows)
    model(**inputs[0])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        losses = [stand_in_loss(model(**each)) for each in inputs]
    left = sum(event.self_cpu_memory_usage for event in record.events() or ())
    assert len(losses) == len(inputs)
    # inputs were there before
    given = sum(value.nbytes for each in inputs for value in each.values())
    assert activation_bytes(subject) == pytest.approx(left + given, rel=0.01)
