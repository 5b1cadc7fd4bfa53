"""The published reference points of a sweep, as its experiment has them."""

from upop_ray import config
from upop_ray.config import Published
from upop_ray.reporting.asked import read_experiment
from upop_ray.store import Store


def read_published(store: Store, sweep: str) -> Published | None:
    """What the experiment of a sweep says was published; None where it says nothing.

    :raises StoreError: the sweep's experiment.yaml is missing or is not YAML
    :raises ConfigError: what it says of published points is wrong
    """
    section = read_experiment(store, sweep)[0].get("published")
    return None if section is None else config.parse({"published": section}).published
