"""RandAugment against arrays that timm 1.0.31 computed with Pillow 13, and that of BLIP against its definitions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from upop_ray.data.rand_augment import BLIP_OPERATIONS, OPERATIONS, RandAugment, parse_rand_augment
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


#: strengths of BLIP: magnitude 5 of 10
HALF = (0.5, -0.5)
GREY = (128, 128, 128)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_the_operations_of_blip_are_the_published_ten() -> None:
    simple = ["identity", "auto_contrast", "brightness", "sharpness", "equalize"]
    assert list(BLIP_OPERATIONS) == [*simple, "shear_x", "shear_y", "shift_x", "shift_y", "rotate"]


@pytest.mark.parametrize("name", ["identity", "brightness", "sharpness"])
@pytest.mark.parametrize("strength", HALF)
def test_half_strength_leaves_these_as_they_are(name: str, strength: float) -> None:
    """As published: 5 / 10 * 1.8 + 0.1 is the factor 1."""
    assert np.array_equal(pixels(BLIP_OPERATIONS[name](IMAGE, strength, GREY)), pixels(IMAGE))


def test_brightness_goes_from_a_tenth_to_nearly_double() -> None:
    image = Image.new("RGB", (2, 2), (100, 50, 200))
    for strength, expected in ((0.0, [10, 5, 20]), (1.0, [190, 95, 255]), (-1.0, [190, 95, 255])):
        assert pixels(BLIP_OPERATIONS["brightness"](image, strength, GREY))[0, 0].tolist() == expected


def test_blip_says_that_these_are_those_of_pillow() -> None:
    for name, reference in (("auto_contrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize)):
        assert np.array_equal(pixels(BLIP_OPERATIONS[name](IMAGE, 0.5, GREY)), pixels(reference(IMAGE)))


@pytest.mark.parametrize(("name", "axis"), [("shift_x", 1), ("shift_y", 0)])
def test_five_pixels_come_in_grey_whatever_the_size(name: str, axis: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 100, (20, 30, 3), dtype=np.uint8))
    for strength, shift in ((0.5, -5), (-0.5, 5)):
        expected = np.roll(pixels(image), shift, axis)
        edge = slice(-5, None) if shift < 0 else slice(0, 5)
        expected[(slice(None), edge) if axis else edge] = 128
        assert np.array_equal(pixels(BLIP_OPERATIONS[name](image, strength, GREY)), expected)


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
@pytest.mark.parametrize("strength", HALF)
def test_shearing_moves_each_line_by_its_number(name: str, strength: float) -> None:
    """Row y of OpenCV's matrix (1, 0.15; 0, 1) is moved by 0.15 y to the right: a ramp shows by how much."""
    ramp = np.tile(np.arange(40) * 4, (40, 1)).astype(np.uint8)
    ramp = ramp if name == "shear_x" else ramp.T
    found = pixels(BLIP_OPERATIONS[name](Image.fromarray(np.stack([ramp] * 3, -1)), strength, GREY))[..., 0]
    found = found if name == "shear_x" else found.T
    expected = 4 * (np.arange(40) - strength * 0.3 * np.arange(40)[:, None])
    # not what comes in from outside; Pillow cuts fractions off
    inside = (expected >= 0) & (expected <= 4 * 39)
    cut = (expected - found)[inside]
    assert cut.min() > -0.01 and cut.max() < 1.001 and inside.mean() > 0.85


@pytest.mark.parametrize("strength", HALF)
def test_rotation_is_that_of_opencv(strength: float) -> None:
    """15 degrees against the clock around pixel (W/2, H/2), which cv2.getRotationMatrix2D takes as its centre."""
    column, row = np.meshgrid(np.arange(40), np.arange(30))
    image = Image.fromarray(np.stack([4 * column, 4 * row, 0 * row], -1).astype(np.uint8))
    found = pixels(BLIP_OPERATIONS["rotate"](image, strength, GREY))
    angle = np.radians(30 * strength)
    right, down = column - 20, row - 15
    source_column = 20 + np.cos(angle) * right - np.sin(angle) * down
    source_row = 15 + np.sin(angle) * right + np.cos(angle) * down
    inside = (source_column >= 1) & (source_column <= 38) & (source_row >= 1) & (source_row <= 28)
    for channel, expected in enumerate((4 * source_column, 4 * source_row)):
        cut = (expected - found[..., channel])[inside]
        assert cut.min() > -0.01 and cut.max() < 1.001
    assert inside.mean() > 0.6 and (found[0, 0] == 128).all()


def test_blip_applies_two_operations_half_of_the_time_with_half_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, float]] = []

    def counting(name: str) -> Any:
        return lambda image, strength, fill: calls.append((name, strength)) or image

    for name in BLIP_OPERATIONS:
        monkeypatch.setitem(BLIP_OPERATIONS, name, counting(name))  # type: ignore[arg-type]
    draws = np.random.default_rng(0)
    for _ in range(3000):
        RandAugment(magnitude=5.0, operations="blip")(IMAGE, draws, GREY)
    assert len(calls) == pytest.approx(3000, rel=0.05)
    assert {strength for _, strength in calls} == {0.5, -0.5}
    per_operation = [sum(name == each for name, _ in calls) for each in BLIP_OPERATIONS]
    assert per_operation == pytest.approx([300] * 10, rel=0.25)
