"""From masks to the sliced model: its budget is checked, and that it computes what the masked model does."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from upop_ray.config import Search
from upop_ray.errors import BudgetError, UpopError
from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.compress import largest_difference
from upop_ray.pruning.cost import removable_cost, removed_cost
from upop_ray.pruning.gates import Gates
from upop_ray.pruning.ranking import Ranking, allowed_miss
from upop_ray.pruning.site import Keep
from upop_ray.training.prepared import Prepared

BUDGET_TOLERANCE = 0.005
#: of the largest output, or of 1
EXACTNESS_TOLERANCE = 1e-5


def achieved_ratio(keep: Keep, ranking: Ranking, search: Search) -> float:
    """The share of the removable budget that the masks remove.

    :raises BudgetError: it misses the asked one by more than 0.5%, or half of the largest block of aligned units
    """
    ratio, budget = search.ratio, search.budget
    achieved = removed_cost(keep, ranking.costs) / removable_cost(ranking.sites, ranking.costs)
    tolerance = BUDGET_TOLERANCE if search.align == 1 else max(BUDGET_TOLERANCE, allowed_miss(ranking))
    # the paper's cut (units) is what it is: off by up to a unit, and by the units that sites keep
    if budget != "units" and abs(achieved - ratio) > tolerance:
        raise BudgetError(
            f"search.ratio: asked {ratio} of the removable {budget}, achieved {achieved:.4f}, further off than "
            f"{tolerance:.1%}; the model's units are too coarse or its floors too high"
        )
    return achieved


def proven_slice(prepared: Prepared, keep: Keep, weights: Mapping[str, Tensor]) -> tuple[PreTrainedModel, float]:
    """Cut, and prove that the sliced model gives the masked model's outputs.

    :param weights: of the dense model's shape, as they were searched
    :returns: the sliced model, and the largest difference
    :raises UpopError: the weights give outputs that are not finite, so nothing can be proved
    """
    spec = prepared.spec
    masked = copy.deepcopy(prepared.model)
    masked.load_state_dict(dict(weights))
    sliced = spec.sliced(masked, dict(weights), keep)
    gates = Gates(masked, spec.sites(prepared.model))
    gates.attach(masked)
    gates.shrink(keep, 0.0)
    return sliced, _difference(spec, masked, sliced)


def _difference(spec: ModelSpec, masked: PreTrainedModel, sliced: PreTrainedModel) -> float:
    example = spec.example(masked)
    with torch.no_grad():
        reference = spec.outputs(masked.eval(), example)
        difference = largest_difference(reference, spec.outputs(sliced, example))
    if not all(output.isfinite().all() for output in reference):
        raise UpopError(
            "the masked model gives outputs that are not finite; lower search.learning_rate, use precision: fp32, or "
            "look at the weights of model.path"
        )
    # rounding grows with what is computed: logits of 4 of a published Segmenter are exact to 1e-5; also where NaN
    if not difference <= EXACTNESS_TOLERANCE * max(1.0, *(output.abs().max().item() for output in reference)):
        raise AssertionError(f"the sliced model differs from the masked one by {difference:.2e}: a defect of upop_ray")
    return difference
