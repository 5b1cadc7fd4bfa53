"""The plan: sizes of the dense model and of the points, from a checkpoint or from a published shape."""

from pathlib import Path

import pytest
import yaml

from tests.rows import ROWS
from tests.test_commands import refused
from tests.tiny import tiny_values
from upop_ray import plan
from upop_ray.config import BUILTIN_EXPERIMENT


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert plan.main(list(arguments)) == 0
    return capsys.readouterr().out


def experiment(name: str) -> str:
    return str(BUILTIN_EXPERIMENT.with_name(f"builtin_{name}.yaml"))


def test_points_are_what_is_left_of_the_dense_model(capsys: pytest.CaptureFixture[str]) -> None:
    # 4 + 3 layers of width 128: attention 32 * 4 * (3 * 129 + 128), MLP 512 * 257
    removable = 7 * (32 * 4 * (3 * 129 + 128) + 512 * 257)
    text = printed(capsys, experiment("clip"), "sweep.ratios=[0.5]")
    assert "1,780,097 parameters" in text
    assert f"{round(1_780_097 - removable / 2):,}" in text
    assert "3,560,194 parameters" in text


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [("vit", "small", "22,050,664"), ("blip_vqa", "base", "361,478,972"), ("segmenter", "small", "26,418,964")],
)
def test_a_published_shape_serves_where_the_checkpoint_is_not_at_hand(
    capsys: pytest.CaptureFixture[str], name: str, size: str, parameters: str
) -> None:
    text = printed(capsys, experiment(name), "model.path=/nowhere", f"model.size={size}")
    assert "/nowhere is not at hand" in text and parameters in text


def test_without_a_published_size_the_missing_checkpoint_is_the_error() -> None:
    assert "/nowhere" in refused(plan.main, experiment("vit"), "model.path=/nowhere")


@pytest.mark.parametrize("name", ROWS)
def test_an_unknown_size_is_refused_with_those_there_are(name: str) -> None:
    line = refused(plan.main, experiment(name), "model.path=/nowhere", "model.size=giant")
    assert "model.size" in line and "giant" in line and "base" in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.family=clop", ["model.family", "clop", "blip_vqa"]),
        ("task={name: caption}", ["task.name", "clip", "caption", "blip_caption"]),
    ],
)
def test_families_and_tasks_that_do_not_fit_are_refused(tmp_path: Path, override: str, words: list[str]) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(tiny_values(tmp_path)))
    line = refused(plan.main, str(path), override)
    assert all(word in line for word in words), line
