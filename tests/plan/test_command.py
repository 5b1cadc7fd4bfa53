"""The plan as a user asks for it: sizes, steps, memory and hours, and what is missing; Ray is not even imported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    return dict(json.loads(printed(capsys, *arguments, "--json")))


def experiment(name: str) -> str:
    return str(BUILTIN_EXPERIMENT.with_name(f"{name}.yaml"))


def test_points_are_what_is_left_of_the_dense_model(capsys: pytest.CaptureFixture[str]) -> None:
    # 4 + 3 layers of width 128: attention 32 * 4 * (3 * 129 + 128), MLP 512 * 257
    removable = 7 * (32 * 4 * (3 * 129 + 128) + 512 * 257)
    text = printed(capsys, experiment("builtin_clip"), "sweep.ratios=[0.5]")
    assert "1,780,097 parameters" in text
    assert f"{round(1_780_097 - removable / 2):,}" in text
    assert "3,560,194 parameters" in text


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [("vit", "small", "22,050,664"), ("segmenter", "small", "26,418,964")],
)
def test_a_published_shape_serves_where_the_checkpoint_is_not_at_hand(
    capsys: pytest.CaptureFixture[str], name: str, size: str, parameters: str
) -> None:
    text = printed(capsys, experiment(f"builtin_{name}"), "model.path=/nowhere", f"model.size={size}")
    assert "/nowhere is not at hand" in text and parameters in text


def test_without_a_published_size_the_missing_checkpoint_is_the_error() -> None:
    assert "/nowhere" in refused(plan.main, experiment("builtin_vit"), "model.path=/nowhere")


def test_ratios_that_floors_forbid_are_refused() -> None:
    line = refused(plan.main, experiment("builtin_clip"), "sweep.ratios=[0.9]", "search.floors.language=0.5")
    assert "search.floors.language=0.5; at most 0.7" in line


@pytest.mark.parametrize("name", ROWS)
def test_an_unknown_size_is_refused_with_those_there_are(name: str) -> None:
    line = refused(plan.main, experiment(f"builtin_{name}"), "model.path=/nowhere", "model.size=giant")
    assert "model.size" in line and "giant" in line and "base" in line


def test_a_shape_for_images_of_another_size_is_refused() -> None:
    changes = ("model.path=/nowhere", "model.size=base", "model.image_size=320")
    line = refused(plan.main, experiment("builtin_blip_caption"), *changes)
    assert "model.image_size" in line and "320" in line and "384" in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.family=clop", ["model.family", "clop", "blip_vqa"]),
        ("task={name: caption}", ["task.name", "clip", "caption", "blip_caption"]),
        ("sweep.space={search.pace: {uniform: [0.0, 1.0]}}", ["search.pace"]),
    ],
)
def test_what_cannot_run_is_refused(tmp_path: Path, override: str, words: list[str]) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(tiny_values(tmp_path)))
    line = refused(plan.main, str(path), override)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("option", [("--throughput", "0"), ("--utilisation", "1.5"), ("--device", "abacus")])
def test_a_wrong_option_is_refused(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        plan.main([experiment("builtin_clip"), *option])
    assert end.value.code == 2 and option[0] in capsys.readouterr().err


def test_options_stand_anywhere_between_settings(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, experiment("builtin_clip"), "--throughput", "50", "sweep.ratios=[0.5]", "sweep.seeds=[1]")
    assert [(point["ratio"], point["seed"]) for point in found["points"]] == [(0.5, 1), (0.5, 1)]
    # two methods of 55 + 110 steps of 128 examples at 50 examples a second
    assert found["hours"]["cpu"] == pytest.approx(2 * 165 * 128 / 50 / 3600)


def test_what_is_missing_is_said_with_its_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = as_json(capsys, experiment("deit_imagenet"), "--device", "a100", "replica.gpus_per_worker=100")
    data, checkpoint, gpus, *_ = found["missing"]
    assert "data/imagenet/manifest.json" in data and "python -m upop_ray.data.prepare imagenet" in data
    assert "pretrained/deit_small_patch16_224-cd65a155.pth" in checkpoint and "facebookresearch/deit" in checkpoint
    assert gpus.startswith("GPUs: 800 a replica")
    assert {point["done"] for point in found["points"]} == {None}


def test_a_cluster_is_not_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://nowhere.invalid:10001")
    missing = as_json(capsys, experiment("builtin_clip"), "replica.workers=2")["missing"]
    assert missing == [
        "cluster: 0 GPUs and 2 CPUs a replica have to be free at ray://nowhere.invalid:10001 (it was not asked)"
    ]


def test_data_that_is_not_the_published_size_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = {"source": "x", "train_examples": 480, "prepare": "y", "checkpoint": "z"}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(tiny_values(tmp_path, published=published)))
    found = as_json(capsys, str(path))
    assert found["examples"]["count"] == 48 and found["missing"] == []
    assert found["notes"] == [
        "an epoch has 48 examples here, the published one 480: multiply epochs by 10 to train as long"
    ]


def test_measured_steps_give_hours_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(tiny_values(tmp_path)))
    found = as_json(capsys, str(path), "--measure")
    assert "8 examples" in found["speed"]["known_from"] and "CPU" in found["speed"]["known_from"]
    assert found["speed"]["seconds_per_example"] > 0 and found["hours"]["cpu"] > 0 and found["hours"]["gpu"] == 0


def test_ray_is_not_imported_and_a_minute_is_enough() -> None:
    code = "import sys, time; from upop_ray import plan; plan.main(sys.argv[1:]); assert 'ray' not in sys.modules"
    arguments = [experiment("deit_imagenet"), "--device", "h100"]
    line = [sys.executable, "-c", f"{code}; print(time.process_time())", *arguments]
    result = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "22,050,664 parameters" in result.stdout and "GPU-hours" in result.stdout
    # of the processor, since the machine has other work
    assert float(result.stdout.splitlines()[-1]) < 60
