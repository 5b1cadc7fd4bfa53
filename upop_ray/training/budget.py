"""From the settings of a search to its ranking, and whether the ratios of an experiment can be reached."""

from transformers import PreTrainedModel

from upop_ray.config import Experiment, Search, at_ratio
from upop_ray.models.spec import ModelSpec
from upop_ray.pruning.cost import unit_costs
from upop_ray.pruning.ranking import Ranking, require_feasible


def ranking_of(search: Search, spec: ModelSpec, model: PreTrainedModel) -> Ranking:
    """What a search with these settings ranks.

    :param model: the dense model; shapes are enough (meta device)
    """
    sites = spec.sites(model)
    return Ranking(
        sites,
        unit_costs(model, sites, search.budget, spec.paper_attention_cost),
        published=search.budget == "units",
        score=search.score,
        floor=search.floor,
        prices=search.regularisation.model_dump(),
        floors=search.floors,
        align=search.align,
    )


def check_ratios(experiment: Experiment, spec: ModelSpec, model: PreTrainedModel) -> None:
    """Make sure, before anything starts, that every ratio of the sweep can be reached under its floors.

    :raises BudgetError: one cannot; says what at most can be removed
    :raises ConfigError: a name in ``search.floors`` is nothing of the model's
    """
    for ratio in sorted(experiment.sweep.ratios):
        require_feasible(ranking_of(at_ratio(experiment, ratio).search, spec, model), ratio)
