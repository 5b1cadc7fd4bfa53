"""Published reference points as a sweep in the store has them."""

from pathlib import Path

import pytest
import yaml

from upop_ray import config
from upop_ray.errors import ConfigError, StoreError
from upop_ray.reporting.published import read_published
from upop_ray.store import Store, SweepPaths

NAME = "sweep"


def written(root: Path, values: object) -> Store:
    store = Store(str(root))
    store.write(SweepPaths(NAME).experiment, yaml.safe_dump(values).encode())
    return store


def test_points_are_those_of_the_experiment(tmp_path: Path) -> None:
    experiment = config.load(config.BUILTIN_EXPERIMENT.with_name("blip_retrieval_flickr30k.yaml"))
    found = read_published(written(tmp_path, experiment.model_dump(mode="json")), NAME)
    assert found is not None and found == experiment.published
    # two sources give two numbers for one model
    at_half = [point.scores["image_to_text_r1"] for point in found.points if point.ratio == 0.5]
    assert at_half == [92.2, 94.0]


def test_an_experiment_of_ones_own_has_none(tmp_path: Path) -> None:
    assert read_published(written(tmp_path, config.load().model_dump(mode="json")), NAME) is None


def test_a_wrong_point_is_named(tmp_path: Path) -> None:
    point = {"ratio": 1.5, "scores": {"accuracy": 80.0}}
    section = {"source": "x", "train_examples": 1, "prepare": "y", "checkpoint": "z", "points": [point]}
    with pytest.raises(ConfigError, match=r"published\.points\.0\.ratio"):
        read_published(written(tmp_path, {"published": section}), NAME)


def test_a_sweep_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"experiment\.yaml"):
        read_published(Store(str(tmp_path)), NAME)
