"""Segmented images: what is read, what is refused, and that image and map stay together under augmentation."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.datasets import write_dataset
from tests.tiny_segments import CLASSES, COLOURS, SIDE, SIZES, drawing, png, write_data
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Cursor, Order
from upop_ray.data.pictures import HeldPictures
from upop_ray.data.segment_batches import SegmentBatches
from upop_ray.data.segment_changes import SegmentedDrawings, SegmenterPhotographs
from upop_ray.data.segments import SegmentedSplit, load_segments
from upop_ray.data.shards import open_dataset
from upop_ray.errors import DataError

PLAIN = Preprocessing(SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def split_of(images: np.ndarray, maps: np.ndarray, classes: int = 3) -> SegmentedSplit:
    """Images (N, H, W, 3) or, grey, (N, H, W), with maps (N, H, W)."""
    colours = images if images.ndim == 4 else np.stack([images] * 3, -1)
    held = [HeldPictures([png(each) for each in part], "somewhere") for part in (colours, maps)]
    return SegmentedSplit(*held, classes)


def black_on_white(count: int = 16, side: int = SIDE) -> SegmentedSplit:
    """A black box of class 1 on white of class 0 in each image, nearer to the top left corner than to the others."""
    maps = np.zeros((count, side, side), np.uint8)
    maps[:, 4:16, 6:20] = 1
    return split_of((1 - maps) * 255, maps)


def batches(
    split: SegmentedSplit, augmentation: str, resize: tuple[float, float] = (1.0, 1.0), size: int = 8
) -> SegmentBatches:
    views = SegmentedDrawings(PLAIN) if augmentation == "drawings" else SegmenterPhotographs(PLAIN, resize)
    return SegmentBatches(split, Order(len(split), size, 0), views)


def epochs(found: SegmentBatches, count: int) -> tuple[Tensor, Tensor]:
    """All examples of some epochs."""
    steps = [found.batch(Cursor(epoch, index)) for epoch in range(count) for index in range(len(found))]
    return torch.cat([step.pixel_values for step in steps]), torch.cat([step.labels for step in steps])


def test_a_split_is_read_as_it_was_drawn(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_data(tmp_path / "data")))
    split = load_segments(dataset, "val")
    images, maps = split.pixels(range(SIZES["val"]))
    assert images.shape == (SIZES["val"], 3, SIDE, SIDE) and maps.shape == (SIZES["val"], SIDE, SIDE)
    assert (maps[:, 0] == 255).all()
    colours = images.permute(0, 2, 3, 1)[:, 1:]
    assert torch.equal(colours, torch.from_numpy(COLOURS)[maps[:, 1:].long()])
    # one by one they are the same
    for (image, classes), *both in zip(split.pairs(range(SIZES["val"])), images, maps, strict=True):
        assert np.array_equal(np.asarray(image), both[0].permute(1, 2, 0)) and torch.equal(classes, both[1])


FULL = np.zeros((SIDE, SIDE), np.uint8)


@pytest.mark.parametrize(
    ("row", "facts", "message"),
    [
        ({"segmentation": png(FULL, "P")}, {}, "row 1: the map is a PNG of mode P; write class indices as mode L"),
        ({"segmentation": png(FULL + 3)}, {}, "row 1: class 3 of 3 classes"),
        ({"segmentation": png(FULL[:16])}, {}, r"row 1: the image is \(32, 32\), its map \(16, 32\)"),
        ({"segmentation": b"nothing"}, {}, "row 1: not a readable map"),
        ({"image": b"nothing"}, {}, "row 1: not a readable image"),
        ({}, {"classes": []}, "must list the names of its classes"),
        ({}, {"classes": None}, "must list the names of its classes"),
    ],
)
def test_what_is_no_segmentation_is_an_error_of_one_line(
    tmp_path: Path, row: dict[str, bytes], facts: dict[str, Any], message: str
) -> None:
    rows = {"train": [drawing(0), drawing(1) | row]}
    dataset = write_dataset(tmp_path / "data", rows, **({"classes": CLASSES} | facts))
    with pytest.raises(DataError, match=message) as caught:
        list(load_segments(dataset, "train").pairs([0, 1]))
    assert "\n" not in str(caught.value) and str(tmp_path / "data") in str(caught.value)


def test_drawings_are_of_one_size_and_of_that_of_their_maps(tmp_path: Path) -> None:
    half = {"image": png(FULL[:16]), "segmentation": png(FULL[:16])}
    for other, message in (
        (half, "images must have one size.*task.augmentation=photographs takes any"),
        (drawing(1) | {"segmentation": png(FULL[:16])}, r"row 1: the image is \(32, 32\), its map \(16, 32\)"),
    ):
        dataset = write_dataset(tmp_path / "data", {"train": [drawing(0), other]}, classes=CLASSES)
        with pytest.raises(DataError, match=message):
            load_segments(dataset, "train").pixels([0, 1])


def test_a_split_without_maps_is_an_error(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", {"train": [{"image": png(FULL)}]}, classes=CLASSES)
    with pytest.raises(DataError, match="no column segmentation"):
        load_segments(dataset, "train")


@pytest.mark.parametrize("augmentation", ["photographs", "drawings"])
def test_parts_of_ranks_are_the_global_batch(augmentation: Any) -> None:
    found = batches(black_on_white(), augmentation, (0.5, 2.0))
    whole = found.batch(Cursor(1, 1))
    parts = [found.batch(Cursor(1, 1), rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat([part.pixel_values for part in parts]), whole.pixel_values)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert whole.pixel_values.shape == (8, 3, SIDE, SIDE) and whole.labels.shape == (8, SIDE, SIDE)
    assert whole.labels.dtype == torch.int64
    assert not torch.equal(found.batch(Cursor(2, 1)).labels, whole.labels)


def test_a_drawing_and_its_map_are_moved_alike_and_outside_is_white_background() -> None:
    pixels, labels = epochs(batches(black_on_white(), "drawings"), 4)
    assert set(labels.unique().tolist()) == {0, 1}
    dark = pixels.mean(1) < pixels.amax((1, 2, 3))[:, None, None] / 2
    box = labels == 1
    # a box that is moved may lose half a pixel of its border to interpolation
    overlap = (dark & box).sum((1, 2)) / (dark | box).sum((1, 2))
    assert overlap.min() > 0.85 and overlap.mean() > 0.95
    areas = box.sum((1, 2))
    assert areas.min() < 12 * 14 < areas.max()


def test_a_photograph_and_its_map_are_scaled_cropped_and_mirrored_alike() -> None:
    pixels, labels = epochs(batches(black_on_white(), "photographs", (0.5, 2.0)), 4)
    assert set(labels.unique().tolist()) == {0, 1, 255}
    padding = labels == 255
    assert (pixels.permute(0, 2, 3, 1)[padding] == 0).all()
    agreement = []
    for image, classes in zip(pixels.mean(1), labels, strict=True):
        black, white = image[classes == 1], image[classes == 0]
        middle = (black.median() + white.median()) / 2
        agreement.append(torch.cat([black < middle, white > middle]).float().mean())
    # at the border of the box the two are mixed, and their contrast is changed
    assert min(agreement) > 0.9 and torch.stack(agreement).mean() > 0.98


def test_photographs_of_their_own_size_are_mirrored_half_of_the_time() -> None:
    split = black_on_white(64)
    _, labels = epochs(batches(split, "photographs"), 4)
    whole = split.pixels([0])[1]
    upright, mirrored = ((labels == maps).flatten(1).all(1) for maps in (whole, whole.flip(-1)))
    assert (upright | mirrored).all()
    # 256 throws of a coin are within five deviations of the half
    assert abs(int(mirrored.sum()) - 128) < 40


def test_a_small_photograph_is_padded_at_the_right_and_the_bottom() -> None:
    _, labels = epochs(batches(black_on_white(), "photographs", (0.5, 0.5)), 1)
    half = SIDE // 2
    assert (labels[:, :half, :half] != 255).all()
    assert (labels[:, half:] == 255).all() and (labels[:, :, half:] == 255).all()


def test_crops_of_nearly_one_class_are_drawn_again() -> None:
    side = 5 * SIDE
    maps = np.zeros((8, side, side), np.uint8)
    maps[:, :, -SIDE // 2 :] = 1
    _, labels = epochs(batches(split_of(np.full_like(maps, 255), maps), "photographs", (5.0, 5.0)), 16)
    both = ((labels == 1).flatten(1).sum(1) >= 0.25 * SIDE**2).float().mean().item()
    # a crop begins at one of 129 columns, at 9 of which a quarter of it or more is of class 1; there are ten tries
    once = 9 / 129
    assert both > 0.6 * (1 - (1 - once) ** 10) > 2 * once


def test_colours_of_photographs_are_distorted_within_the_published_bounds() -> None:
    colour = torch.tensor([200, 60, 50], dtype=torch.uint8)
    images = np.broadcast_to(colour.numpy(), (64, SIDE, SIDE, 3))
    split = split_of(images, np.zeros((64, SIDE, SIDE), np.uint8))
    pixels, _ = epochs(batches(split, "photographs"), 4)
    found = pixels[:, :, 0, 0]
    assert torch.equal(pixels, found[:, :, None, None].expand_as(pixels))
    before = colorsys.rgb_to_hsv(*(colour / 255).tolist())
    hues = np.array([colorsys.rgb_to_hsv(*each)[0] for each in found.tolist()]) - before[0]
    hues = (hues + 0.5) % 1 - 0.5
    # a tenth of the circle, and what rounding to 8 bit adds to it; clipping of bright colours bends it a little more
    assert 0.08 < np.abs(hues).max() < 0.14
    unchanged = (found == (colour / 255)).all(1).float().mean().item()
    # four changes, each half of the time
    assert unchanged == pytest.approx(1 / 16, abs=0.05)


def test_grey_photographs_stay_grey() -> None:
    images = np.arange(0, 256, 4, dtype=np.uint8)[:, None, None].repeat(SIDE, 1).repeat(SIDE, 2)
    pixels, _ = epochs(batches(split_of(images, np.zeros_like(images)), "photographs"), 1)
    assert torch.equal(pixels[:, 0], pixels[:, 1]) and torch.equal(pixels[:, 0], pixels[:, 2])
    assert pixels.min() >= 0 and pixels.max() <= 1


def test_the_shorter_side_of_a_photograph_is_brought_to_that_of_the_crop() -> None:
    """Whatever its size: the map of quarters is cut at the middle of the crop's height, or of its width."""
    for height, width in ((5, 16), (70, 32), (32, 32), (200, 90)):
        maps = np.zeros((1, height, width), np.uint8)
        maps[:, height // 2 :] += 1
        maps[:, :, width // 2 :] += 2
        split = split_of(np.zeros_like(maps), maps, classes=4)
        _, labels = epochs(batches(split, "photographs", size=1), 1)
        assert (labels != 255).all()
        across = labels[0, :, 0] if height <= width else labels[0, 0]
        changes = (across.diff() != 0).nonzero().flatten().tolist()
        assert len(changes) == 1 and abs(changes[0] + 1 - SIDE / 2) <= SIDE / min(height, width)


def test_photographs_are_evaluated_one_by_one_and_drawings_together() -> None:
    split = black_on_white(5)
    (whole,) = SegmentedDrawings(PLAIN).evaluation(split, range(1, 4))
    one_by_one = list(SegmenterPhotographs(PLAIN, (0.5, 2.0)).evaluation(split, range(1, 4)))
    assert whole[0].shape == (3, 3, SIDE, SIDE) and len(one_by_one) == 3
    for place, parts in enumerate(zip(*one_by_one, strict=True)):
        assert torch.equal(torch.cat(parts), whole[place])
