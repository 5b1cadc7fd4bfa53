"""Every family can be exported, and every class of a sliced model is known by its type."""

from collections.abc import Mapping

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from upop_ray.deploy import card, graphs, latency_models, loading_lines, samples, subject
from upop_ray.models import MODELS

BY_FAMILY: Mapping[str, Mapping[str, object]] = {
    "card._TASKS": card._TASKS,
    "graphs._GRAPHS": graphs._GRAPHS,
    "loading_lines._CALLS": loading_lines._CALLS,
    "samples._SAMPLES": samples._SAMPLES,
}


@pytest.mark.parametrize("name", BY_FAMILY)
def test_each_table_of_families_has_all_of_them(name: str) -> None:
    assert BY_FAMILY[name].keys() == MODELS.keys()


def test_a_folder_of_each_family_is_known_by_its_type() -> None:
    assert set(subject.FAMILIES.values()) == MODELS.keys()
    assert {name for name in CONFIG_MAPPING if name.startswith(subject._OWN)} == subject.FAMILIES.keys()
    # of some families all dense models are of a type of this package
    dense = {*latency_models._DENSE.values(), *latency_models._BLIPS.values()}
    own = {family for name, family in subject.FAMILIES.items() if name.endswith("_dense")}
    assert dense | own == MODELS.keys()
