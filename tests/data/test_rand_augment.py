"""RandAugment against arrays that timm 1.0.31 computed with Pillow 13."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upop_ray.data.rand_augment import OPERATIONS, RandAugment, parse_rand_augment
from upop_ray.errors import ConfigError

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "deit_recipe.npz"))
IMAGE = Image.fromarray(GOLDEN["image"])
FILL = tuple(GOLDEN["fill"].tolist())
WHITE = (255, 255, 255)


@pytest.mark.parametrize("magnitude", [3, 9, -3, -9])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_timm(name: str, magnitude: int) -> None:
    changed = OPERATIONS[name](IMAGE, magnitude / 10, FILL)
    assert np.array_equal(np.asarray(changed), GOLDEN[f"{name}/{magnitude}"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_bear_their_whole_range(name: str) -> None:
    for strength in (-1.0, 0.0, 1.0):
        changed = OPERATIONS[name](IMAGE, strength, FILL)
        assert changed.size == IMAGE.size and changed.mode == "RGB"


def test_posterizing_with_full_strength_is_black() -> None:
    """4 bits less 4: as timm with a Pillow that posterizes to 0 bits."""
    assert not np.asarray(OPERATIONS["posterize"](IMAGE, 1.0, FILL)).any()


def test_the_published_notation_is_read() -> None:
    assert parse_rand_augment("rand-m9-mstd0.5-inc1") == RandAugment(9.0, 0.5, layers=2, probability=0.5)
    assert parse_rand_augment("rand-n3-p0.7-inc1") == RandAugment(10.0, 0.0, layers=3, probability=0.7)
    assert parse_rand_augment("") is None


@pytest.mark.parametrize(
    "notation", ["rand-m9", "rand-m9-inc0", "augmix-m3", "rand-m9-x1-inc1", "rand-n2.5-inc1", "m9"]
)
def test_another_notation_is_refused(notation: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.rand_augment: cannot be read, got '{notation}'; use timm's"):
        parse_rand_augment(notation)


@pytest.mark.parametrize("notation", ["rand-m11-inc1", "rand-p2-inc1"])
def test_numbers_out_of_range_are_refused(notation: str) -> None:
    with pytest.raises(ConfigError, match="m is at most 10 and p at most 1"):
        parse_rand_augment(notation)


class Counting:
    """Operations that only count, and note with which strengths they were called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, float]] = []
        for name in OPERATIONS:
            monkeypatch.setitem(OPERATIONS, name, self.operation(name))  # type: ignore[arg-type]

    def operation(self, name: str) -> object:
        def count(image: Image.Image, strength: float, fill: object) -> Image.Image:
            self.calls.append((name, strength))
            return image

        return count


def test_how_often_and_how_strongly_operations_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    counting, draws = Counting(monkeypatch), np.random.default_rng(0)
    for _ in range(3000):
        RandAugment(9.0, 0.5)(IMAGE, draws, WHITE)
    # two operations, each applied with probability one half
    assert len(counting.calls) == pytest.approx(3000, rel=0.05)
    per_operation = [sum(name == each for name, _ in counting.calls) for each in OPERATIONS]
    assert per_operation == pytest.approx([200] * 15, rel=0.3)
    strengths = np.array([strength for _, strength in counting.calls])
    assert np.mean(strengths > 0) == pytest.approx(0.5, abs=0.05)
    # normal around 0.9, cut at 1, which the deviation of 0.05 reaches in one of 44 cases
    assert np.median(abs(strengths)) == pytest.approx(0.9, abs=0.005)
    assert abs(strengths).max() == 1 and np.mean(abs(strengths) == 1) == pytest.approx(0.0228, abs=0.01)


def test_the_same_draws_give_the_same_image_and_global_generators_are_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    first, second = (
        np.asarray(RandAugment(9.0, 0.5, layers=4, probability=1.0)(IMAGE, np.random.default_rng(7), WHITE))
        for _ in range(2)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, GOLDEN["image"])
    assert np.array_equal(np.random.get_state()[1], before)
