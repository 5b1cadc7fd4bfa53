"""Crops and erasing; the crop of the evaluation against arrays that torchvision 0.28 computed."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_rand_augment import GOLDEN
from upop_ray.data.photographs import as_pixels, centre_crop, erased, fitted, random_crop, squared


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_the_evaluation_sees_what_torchvision_crops(shape: str) -> None:
    cropped = centre_crop(Image.fromarray(GOLDEN[f"photograph/{shape}"]), 28)
    assert np.array_equal(np.asarray(cropped), GOLDEN[f"centre/{shape}"])


def places(width: int, height: int) -> Image.Image:
    """An image whose red says the column and whose green says the row."""
    row, column = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([column, row, np.zeros_like(row)], -1).astype(np.uint8))


DEIT, BLIP = (0.08, 1.0), (0.5, 1.0)


def corners(
    image: Image.Image, area: tuple[float, float], draws: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, top, width and height of a random crop, read off from its pixels, to about one pixel."""
    crop = np.asarray(random_crop(image, 16, area, draws)).astype(float)
    left, right = crop[:, 0, 0].mean(), crop[:, -1, 0].mean()
    top, bottom = crop[0, :, 1].mean(), crop[-1, :, 1].mean()
    # the outermost pixels are half a pixel of the crop inside of it
    return left, top, (right - left) * 16 / 15, (bottom - top) * 16 / 15


def test_crops_have_the_published_areas_and_aspects() -> None:
    image, draws = places(200, 150), np.random.default_rng(0)
    left, top, width, height = np.array([corners(image, DEIT, draws) for _ in range(1000)]).T
    area, aspect = width * height / (200 * 150), width / height
    assert 0.07 < area.min() < 0.11 and area.max() <= 1.0
    # torchvision's mean over 20,000 crops of such an image is 0.435: the largest ones do not fit and are drawn again
    assert area.mean() == pytest.approx(0.435, abs=0.03)
    assert aspect.min() > 0.75 * 0.95 and aspect.max() < 4 / 3 * 1.05
    assert left.min() < 5 and (left + width).max() > 190 and top.min() < 5 and (top + height).max() > 140


def test_crops_of_blip_show_half_of_the_photograph_at_least() -> None:
    image, draws = places(200, 150), np.random.default_rng(0)
    _, _, width, height = np.array([corners(image, BLIP, draws) for _ in range(300)]).T
    area = width * height / (200 * 150)
    assert 0.47 < area.min() < 0.55 and 0.95 < area.max() <= 1.0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_a_tiny_photograph_can_be_cropped(size: tuple[int, int]) -> None:
    for seed in range(20):
        assert random_crop(places(*size), 16, DEIT, np.random.default_rng(seed)).size == (16, 16)


def test_a_whole_photograph_is_squeezed_into_a_square() -> None:
    """Left half black, right half white, whatever the aspect."""
    image = Image.new("RGB", (64, 8))
    image.paste((255, 255, 255), (32, 0, 64, 8))
    seen = np.asarray(squared(image, 16))
    assert seen.shape == (16, 16, 3) and (seen[:, :6] == 0).all() and (seen[:, 10:] == 255).all()


@pytest.mark.parametrize(
    ("height", "width", "side", "expected"),
    [
        (480, 640, 512, (512, 683)),  # 640 * 512 / 480 = 682.67
        (640, 480, 512, (683, 512)),
        (100, 1000, 512, (205, 2048)),  # the longer side is the limit: 100 * 2048 / 1000 = 204.8
        (480, 640, 256, (256, 341)),  # half the size, as for a ratio of 0.5
        (64, 64, 64, (64, 64)),
        (1, 1000, 8, (1, 32)),
    ],
)
def test_sizes_are_those_of_mmsegmentation(height: int, width: int, side: int, expected: tuple[int, int]) -> None:
    assert fitted(height, width, side) == expected


@pytest.mark.parametrize(("size", "box"), [((200, 10), (93, 0, 13, 10)), ((10, 200), (0, 93, 10, 13))])
def test_a_photograph_that_is_too_long_gives_its_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    """No crop of 8% of the area has an aspect below 4/3 here."""
    left, top, width, height = box
    middle = places(*size).crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BICUBIC)
    crop = random_crop(places(*size), 16, DEIT, np.random.default_rng(0))
    assert np.array_equal(np.asarray(crop), np.asarray(middle))


def test_pixels_are_shares_of_full_brightness() -> None:
    image = Image.new("RGB", (2, 1), (255, 51, 0))
    image.putpixel((1, 0), (0, 0, 102))
    expected = torch.tensor([[[1.0, 0.0]], [[0.2, 0.0]], [[0.0, 0.4]]])
    torch.testing.assert_close(as_pixels(image), expected)


def test_erasing_puts_noise_into_one_box_of_some_images() -> None:
    plain, draws = torch.full((3, 32, 32), 7.0), np.random.default_rng(0)
    changed = [erased(plain, 0.25, draws) for _ in range(1000)]
    masks = [(image != 7).any(0) for image in changed]
    found = [(mask, image) for mask, image in zip(masks, changed, strict=True) if mask.any()]
    assert len(found) == pytest.approx(250, abs=45)
    for mask, _ in found:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # rounded to whole pixels
        assert box.all() and 0.015 < mask.float().mean() < 0.36
    noise = torch.cat([image[:, mask].flatten() for mask, image in found])
    assert float(noise.mean()) == pytest.approx(0, abs=0.02) and float(noise.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(plain, torch.full((3, 32, 32), 7.0))


@pytest.mark.parametrize(("probability", "changes"), [(0.0, False), (1.0, True)])
def test_the_probability_of_erasing_may_be_none_or_all(probability: float, changes: bool) -> None:
    plain = torch.full((3, 32, 32), 7.0)
    draws = np.random.default_rng(0)
    assert {not torch.equal(erased(plain, probability, draws), plain) for _ in range(50)} == {changes}
