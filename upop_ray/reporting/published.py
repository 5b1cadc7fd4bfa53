"""The published reference points of a sweep, as its experiment has them."""

import yaml

from upop_ray import config
from upop_ray.config import Published
from upop_ray.errors import StoreError
from upop_ray.store import Store, SweepPaths


def read_published(store: Store, sweep: str) -> Published | None:
    """What the experiment of a sweep says was published; None where it says nothing.

    :raises StoreError: the sweep's experiment.yaml is missing or is not YAML
    :raises ConfigError: what it says of published points is wrong
    """
    path = SweepPaths(sweep).experiment
    try:
        values = yaml.safe_load(store.read(path))
    except yaml.YAMLError as error:
        raise StoreError(f"{store.path(path)}: is not YAML: {error}") from error
    section = values.get("published") if isinstance(values, dict) else None
    return None if section is None else config.parse({"published": section}).published
