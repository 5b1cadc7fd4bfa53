"""What a plan is about: the dense model, from its checkpoint or from the published shape."""

from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedModel

from upop_ray.config import Experiment
from upop_ray.errors import CheckpointError, ConfigError
from upop_ray.models import family
from upop_ray.models.spec import ModelSpec, Size, eager_attention
from upop_ray.pruning.cost import Budget, removable_cost, unit_costs
from upop_ray.pruning.site import Site
from upop_ray.training.prepared import load_dense


@dataclass(frozen=True, eq=False)
class Subject:
    """An experiment with its dense model.

    :param model: the checkpoint, or the published size on the meta device, where nothing is allocated
    :param problem: why it is not the checkpoint
    """

    experiment: Experiment
    spec: ModelSpec
    model: PreTrainedModel
    problem: str | None = None

    @cached_property
    def shape(self) -> PreTrainedModel:
        """The model on the meta device: every count is the same there, and costs nothing."""
        with torch.device("meta"):
            return type(self.model)(self.model.config).eval()

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The sites of the model."""
        return self.spec.sites(self.shape)

    @cached_property
    def size(self) -> Size:
        """Size of the deployable dense model."""
        return self.spec.size(self.shape)

    @cached_property
    def paper_size(self) -> Size | None:
        """Size as the paper counts it, where that differs."""
        if self.spec.paper_size is None:
            return None
        with eager_attention(self.shape):
            return self.spec.paper_size(self.shape)

    def costs(self, budget: Budget) -> dict[str, int]:
        """Cost of a unit of each site."""
        return unit_costs(self.shape, self.sites, budget, self.spec.paper_attention_cost)

    def removable(self, budget: Budget) -> int:
        """What a ratio is a share of."""
        return removable_cost(self.sites, self.costs(budget))

    def left(self, ratio: float) -> tuple[float, float]:
        """Parameters and MACs of a point: exact in the currency of the budget, the other by the same share."""
        return (
            self.size.parameters - ratio * self.removable("params"),
            self.size.macs - ratio * self.removable("macs"),
        )


def subject_of(experiment: Experiment) -> Subject:
    """Load the checkpoint, or, where it is not at hand, build the published size that the experiment names.

    :raises CheckpointError: it is not at hand, and no published size is named
    :raises ConfigError: the family has no such size
    """
    spec = family(experiment.model.family, experiment.task.name)
    try:
        return Subject(experiment, spec, load_dense(experiment.model)[0])
    except CheckpointError as error:
        if experiment.model.size is None:
            raise
        return Subject(experiment, spec, published(experiment, spec), str(error))


def published(experiment: Experiment, spec: ModelSpec) -> PreTrainedModel:
    """The model of ``model.size`` on the meta device.

    :raises ConfigError: the family has no such size, or it is for images of another size
    """
    name, asked = experiment.model.size, experiment.model.image_size
    if name is None or name not in spec.published:
        known = ", ".join(spec.published)
        raise ConfigError("model.size", f"{experiment.model.family} has no size {name!r}", f"use one of {known}")
    with torch.device("meta"):
        model = spec.published[name]().eval()
    own = getattr(model.config, "vision_config", model.config).image_size
    if asked is not None and asked != own:
        raise ConfigError(
            "model.image_size", f"{asked} asked, {name} is for {own}", f"plan with {own}, or with the checkpoint"
        )
    return model
