"""Floors, aligned widths and the warning of a collapse, from the settings of a point to its manifest."""

from pathlib import Path

import pytest

from tests.tiny import tiny_experiment
from tests.training.test_point import begin
from upop_ray.config import BUILTIN_EXPERIMENT, Experiment, load
from upop_ray.errors import ConfigError
from upop_ray.identity import point_hash
from upop_ray.models import family
from upop_ray.pruning.collapse import collapse_warnings
from upop_ray.pruning.methods import METHODS, unsearched_masks
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.table import warning_lines
from upop_ray.training.budget import ranking_of
from upop_ray.training.prepared import load_dense


def quick(root: Path, **search: object) -> Experiment:
    return tiny_experiment(root, epoch_steps=1, search={"method": "magnitude_uniform", **search})


def test_a_point_keeps_its_floors_in_widths_of_whole_multiples(tmp_path: Path) -> None:
    *_, last = begin(quick(tmp_path, ratio=0.4, align=4, floors={"language": 0.8, "vision.0.mlp": 16}))
    assert last.manifest is not None
    kept = last.manifest["kept_units"]
    assert all(width % 4 == 0 for width in kept.values())
    assert kept["text.0.attn"] >= 13 and kept["text.0.mlp"] >= 52 and kept["vision.0.mlp"] >= 16
    # half of a block of 4 units of attention, which cost 262 of 16704 in all
    assert abs(last.manifest["budget"]["achieved"] - 0.4) <= 2 * 262 / 16704
    assert last.manifest["warnings"] == []


def test_a_collapse_is_noted_while_the_point_runs_and_in_its_manifest(tmp_path: Path) -> None:
    reports = list(begin(quick(tmp_path, ratio=0.5, collapse_share=0.55)))
    manifest = reports[-1].manifest
    assert manifest is not None and len(manifest["warnings"]) == 4
    assert manifest["warnings"][0].startswith("vision/attention keeps 50.0% of its units (8 of 16)")
    assert [f"warning: {line}" for line in manifest["warnings"]] == [report.note for report in reports if report.note]


def test_global_magnitude_on_blip_is_warned_of() -> None:
    experiment = load(BUILTIN_EXPERIMENT.with_name("builtin_blip_caption.yaml"), ["search.ratio=0.75"])
    prepared_model, spec = load_dense(experiment.model)[0], family("blip_caption", "caption")
    ranking = ranking_of(experiment.search, spec, prepared_model)
    keep = unsearched_masks(prepared_model, METHODS["magnitude"], ranking, 0.75, seed=0)
    lines = collapse_warnings(ranking.sites, keep, experiment.search.collapse_share)
    assert any(line.startswith("cross/attention keeps 3.1% of its units (2 of 64)") for line in lines)
    row = PointRow("magnitude", 0.75, 0, 0, {}, "a hash", "finished", "", {"warnings": lines})
    assert warning_lines([row])[0] == f"warning: magnitude 0.75 seed 0: {lines[0]}"


def test_limits_that_are_not_used_change_no_hash_and_those_that_are_do() -> None:
    def address(*overrides: str) -> str:
        return point_hash(load(None, overrides), "data", "weights")

    plain = address()
    assert address("search.floors={}", "search.align=1", "search.collapse_share=0.3") == plain
    others = {address("search.floors.language=0.2"), address("search.floors.language=0.3"), address("search.align=8")}
    assert len(others | {plain}) == 4


def test_the_name_of_a_site_can_be_written_with_its_dots() -> None:
    found = load(None, ["search.floors.vision.3.mlp=64", "search.floors.cross/attention=0.1"]).search.floors
    assert found == {"vision.3.mlp": 64, "cross/attention": 0.1}


@pytest.mark.parametrize("value", ["1.5", "0", "-1", "true", "many", "[1]"])
def test_a_floor_is_a_share_or_a_count(value: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.floors\.vision: must be a share in \(0, 1\) or a whole number"):
        load(None, [f"search.floors.vision={value}"])


def test_the_papers_cut_is_not_aligned() -> None:
    with pytest.raises(ConfigError, match=r"search\.align: 8 asked, .*search\.budget=units"):
        load(None, ["search.align=8", "search.budget=units"])
