"""What was published about an experiment: reference points for plans and reports. Nothing computed depends on it."""

from typing import Annotated

from pydantic import Field, model_validator

from upop_ray.config.base import Finite, FromList, Part, Positive, PositiveFloat
from upop_ray.errors import ConfigError


class PublishedPoint(Part):
    """A published model: its size as the source counts it, and its scores under the names of our metrics.

    :ivar ratio: share of the removable budget that is gone; 0 is the dense model
    :ivar parameters: counted as ``ModelSpec.paper_size`` counts them
    :ivar macs: likewise
    """

    ratio: Annotated[float, Field(ge=0, lt=1)]
    scores: Annotated[dict[str, Finite], Field(min_length=1)]
    parameters: PositiveFloat | None = None
    macs: PositiveFloat | None = None
    #: where this point is from, if not from where the others are
    source: str | None = None


class Published(Part):
    """Reference points with their source, and what the published runs had that a plan has to know."""

    source: str
    #: what the scores were measured on
    split: str = "test"
    #: examples of one published epoch
    train_examples: Positive
    #: command that prepares the data
    prepare: str
    #: where the dense checkpoint is to be had
    checkpoint: str
    points: Annotated[tuple[PublishedPoint, ...], FromList] = ()

    @model_validator(mode="after")
    def _one_point_of_a_source(self) -> "Published":
        seen = set()
        for point in self.points:
            key = (point.ratio, point.source or self.source)
            if key in seen:
                raise ConfigError(
                    "published.points", f"two of ratio {point.ratio:g} from one source", "merge them, or name the other"
                )
            seen.add(key)
        return self
