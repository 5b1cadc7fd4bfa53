"""The exact slice on a two-layer network, where everything can be seen, and on random masks of any shape."""

import math

import pytest
import torch
from torch import Tensor, nn

from upop_ray.pruning.compress import folded_state, largest_difference, resize, sliced_state
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.site import Site, Slot, kept_counts


class TwoLayers(nn.Module):
    """``out(relu(into(x)))``; a unit stands once in each of two groups."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 6, bias=bias), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).relu())


SITES = (Site("it", "mlp", "vision", 3, (Slot("into", 2, 1),), (Slot("out", 2, 1),)),)
KEEP = {"it": torch.tensor([True, False, True])}


def test_rows_and_columns_of_kept_units_are_selected_in_every_group() -> None:
    model = TwoLayers()
    state = model.state_dict()
    sliced = sliced_state(state, SITES, KEEP)
    kept = [0, 2, 3, 5]
    assert torch.equal(sliced["into.weight"], state["into.weight"][kept])
    assert torch.equal(sliced["into.bias"], state["into.bias"][kept])
    assert torch.equal(sliced["out.weight"], state["out.weight"][:, kept])
    assert torch.equal(sliced["out.bias"], state["out.bias"])
    assert state["into.weight"].shape == (6, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_a_resized_model_takes_the_sliced_state(bias: bool) -> None:
    torch.manual_seed(0)
    model, x = TwoLayers(bias), torch.randn(4, 3)
    state = model.state_dict()
    gates = Gates(model, SITES)
    gates.attach(model)
    gates.shrink(KEEP, 0.0)
    small = TwoLayers(bias)
    resize(small, SITES, kept_counts(KEEP))
    small.load_state_dict(sliced_state(state, SITES, KEEP))
    assert (small.into.weight.shape, small.out.weight.shape) == ((4, 3), (2, 4))
    torch.testing.assert_close(small(x), model(x))


def test_folded_gates_of_kept_units_stay_in_the_sliced_model() -> None:
    torch.manual_seed(0)
    model, x = TwoLayers(), torch.randn(4, 3)
    gates = Gates(model, SITES)
    gates.attach(model)
    with torch.no_grad():
        gates.tensors["it"].copy_(torch.tensor([0.5, 0.0, 1.5]))
    folded = folded_state(model.state_dict(), SITES, gates.tensors, KEEP)
    small = TwoLayers()
    resize(small, SITES, kept_counts(KEEP))
    small.load_state_dict(sliced_state(folded, SITES, KEEP))
    torch.testing.assert_close(small(x), model(x))


def test_folding_gates_of_one_changes_nothing() -> None:
    model = TwoLayers()
    gates = Gates(model, SITES)
    gates.shrink(KEEP, 0.0)
    folded = folded_state(model.state_dict(), SITES, gates.tensors, KEEP)
    # also the removed unit keeps its weights
    assert all(torch.equal(folded[name], value) for name, value in model.state_dict().items())


def test_the_largest_difference_is_over_all_outputs() -> None:
    first = (torch.tensor([1.0, 2.0]), torch.tensor([[0.0]]))
    second = (torch.tensor([1.5, 2.0]), torch.tensor([[-3.0]]))
    assert largest_difference(first, second) == 3.0
    assert largest_difference(first, first) == 0.0


def test_an_output_that_is_no_number_is_no_small_difference() -> None:
    first = (torch.tensor([1.0, 2.0]), torch.tensor([[0.0]]))
    for nan in ((first[0], torch.tensor([[torch.nan]])), (torch.tensor([torch.nan, 2.0]), first[1])):
        assert math.isnan(largest_difference(first, nan)) and math.isnan(largest_difference(nan, nan))
