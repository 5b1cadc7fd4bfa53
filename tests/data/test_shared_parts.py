from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from upop_ray.data.shared_parts import SharedPart, whole, without_part
from upop_ray.errors import CheckpointError

STATE = {"tower.weight": torch.arange(6.0), "tower.bias": torch.ones(2), "head.weight": torch.zeros(3)}


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "pretrain.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def part(tmp_path: Path) -> SharedPart:
    other = {name: value for name, value in STATE.items() if name.startswith("tower.")} | {"decoder": torch.ones(1)}
    return SharedPart("tower.", write(tmp_path / "other", other))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPOP_CACHE", str(tmp_path / "cache"))


def test_what_is_left_out_comes_back_bit_for_bit(tmp_path: Path, part: SharedPart) -> None:
    folder = write(tmp_path / "one", STATE)
    without_part(folder, part)
    assert set(load_file(folder / "model.safetensors")) == {"head.weight"}
    made = whole(folder, part)
    state = load_file(made / "model.safetensors")
    assert set(state) == set(STATE) and all(state[name].equal(value) for name, value in STATE.items())
    # the record belongs to the weights as they are shipped
    assert sorted(file.name for file in made.iterdir()) == ["config.json", "model.safetensors"]
    assert whole(folder, part) == made and [file.name for file in made.parent.iterdir()] == [made.name]


def test_other_weights_are_made_anew(tmp_path: Path, part: SharedPart) -> None:
    first = whole(write(tmp_path / "one", {"head.weight": torch.zeros(3)}), part)
    save_file({"head.weight": torch.ones(3)}, tmp_path / "one" / "model.safetensors")
    second = whole(tmp_path / "one", part)
    assert first != second and load_file(second / "model.safetensors")["head.weight"].equal(torch.ones(3))


def test_a_part_that_was_trained_is_not_left_out(tmp_path: Path, part: SharedPart) -> None:
    folder = write(tmp_path / "one", STATE | {"tower.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"tower\.\* differs from .*other; train with that part frozen"):
        without_part(folder, part)
    assert set(load_file(folder / "model.safetensors")) == set(STATE)
