"""The proof of a slice: what cannot be proved does not pass."""

import dataclasses

import pytest
import torch

from tests.slicing import random_keep
from tests.tiny import tiny_experiment
from upop_ray.errors import UpopError
from upop_ray.training.prepared import Prepared, prepare
from upop_ray.training.slicing import proven_slice


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tiny_experiment(tmp_path_factory.mktemp("slicing")))


def test_a_slice_is_proved_and_one_that_differs_or_gives_no_number_is_a_defect(prepared: Prepared) -> None:
    keep = random_keep(prepared.spec.sites(prepared.model), 0.5)
    weights = prepared.model.state_dict()
    assert proven_slice(prepared, keep, weights)[1] <= 1e-5
    for wrong in (1e-2, torch.nan):

        def off(model, state, masks, wrong=wrong):  # type: ignore[no-untyped-def]
            sliced = prepared.spec.sliced(model, state, masks)
            # the second of three outputs
            sliced.text_projection.weight.data[0, 0] += wrong
            return sliced

        broken = dataclasses.replace(prepared, spec=dataclasses.replace(prepared.spec, sliced=off))
        with pytest.raises(AssertionError, match="differs from the masked one"):
            proven_slice(broken, keep, weights)


def test_weights_that_give_no_numbers_are_no_defect_of_the_slice(prepared: Prepared) -> None:
    keep = random_keep(prepared.spec.sites(prepared.model), 0.5)
    weights = {name: value.clone() for name, value in prepared.model.state_dict().items()}
    weights["text_projection.weight"][0, 0] = torch.nan
    with pytest.raises(UpopError, match=r"not finite; lower search\.learning_rate"):
        proven_slice(prepared, keep, weights)
