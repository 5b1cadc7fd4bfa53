"""Images with classes: reading, and batches that are the same for every number of ranks."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.datasets import drawing, encoded, write_dataset
from upop_ray.data.class_batches import ClassBatch, ClassBatches
from upop_ray.data.classes import ClassSplit, class_names, load_classes
from upop_ray.data.images import Preprocessing
from upop_ray.data.mixing import Mixing
from upop_ray.data.order import Cursor, Order, Rows
from upop_ray.data.pictures import HeldPictures, Pictures
from upop_ray.data.rand_augment import RandAugment
from upop_ray.data.shards import open_dataset
from upop_ray.data.views import DeitPhotographs, Drawings, Photographs, Views
from upop_ray.errors import DataError

ROWS, SIZE = 12, 8
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
RECIPE = RandAugment(9.0, 0.5)
CLASSES = ("ant", "bee", "cat")


def make_split(photographs: bool = False) -> ClassSplit:
    sizes = [(SIZE + row, SIZE + 2 * row) if photographs else (SIZE, SIZE) for row in range(ROWS)]
    contents = tuple(drawing(row, *size) for row, size in enumerate(sizes))
    return ClassSplit(HeldPictures(contents, "somewhere"), torch.arange(ROWS) % len(CLASSES))


def make_batches(views: Views, **other: Any) -> ClassBatches:
    parts = {
        "split": make_split(isinstance(views, Photographs)),
        "order": Order(ROWS, 6, seed=3),
        "mixing": Mixing(0.8, 1.0),
        "labels": torch.tensor([2, 0, 1]),
        "smoothing": 0.1,
    }
    return ClassBatches(views=views, **(parts | other))


VIEWS = {
    "photographs": DeitPhotographs(PREPROCESSING, RECIPE, erasing=0.5),
    "drawings": Drawings(PREPROCESSING, RECIPE, erasing=0.5),
    "gentle drawings": Drawings(PREPROCESSING, None, erasing=0.0),
}


@pytest.fixture(params=list(VIEWS))
def views(request: pytest.FixtureRequest) -> Views:
    return VIEWS[request.param]


class Unchanged(Drawings):
    """Each image is its row, so that mixtures can be computed by hand."""

    def training(self, pictures: Pictures, rows: np.ndarray, step: Rows, places: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).float().view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)


def test_shapes_and_types(views: Views) -> None:
    batch = make_batches(views).batch(Cursor(0, 1))
    assert batch.pixel_values.shape == (6, 3, SIZE, SIZE) and batch.pixel_values.dtype == torch.float32
    assert batch.targets.shape == (6, 3)
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(6))


@pytest.mark.parametrize("mixing", [Mixing(0.8, 1.0), Mixing(0.0, 0.0)])
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_parts_of_the_ranks_are_the_global_batch(views: Views, world_size: int, mixing: Mixing) -> None:
    batches = make_batches(views, mixing=mixing)
    whole = batches.batch(Cursor(1, 1))
    parts = [batches.batch(Cursor(1, 1), rank, world_size) for rank in range(world_size)]
    assert torch.equal(torch.cat([part.pixel_values for part in parts]), whole.pixel_values)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


def test_a_batch_depends_on_its_place_and_the_seed_alone(views: Views) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    batches = make_batches(views)
    batches.batch(Cursor(0, 0))
    first, second = batches.batch(Cursor(2, 1)), make_batches(views).batch(Cursor(2, 1))
    assert torch.equal(first.pixel_values, second.pixel_values) and torch.equal(first.targets, second.targets)
    assert not torch.equal(batches.batch(Cursor(3, 1)).pixel_values, first.pixel_values)
    other = make_batches(views, order=Order(ROWS, 6, seed=4))
    assert not torch.equal(other.batch(Cursor(2, 1)).pixel_values, first.pixel_values)
    # nothing is drawn from the generators of the process
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def mixed_by_hand(batches: ClassBatches, cursor: Cursor, batch: ClassBatch, box: bool) -> None:
    """Compare a batch of :class:`Unchanged` images with mixtures of its rows, whatever the share is."""
    rows = torch.from_numpy(batches.order.step(cursor).whole).float()
    partners = rows.flip(0)
    images = batch.pixel_values[:, 0]
    if box:
        # each pixel is of one or the other, at the same places in all images
        covered = (images == partners.view(-1, 1, 1)).all(0)
        assert torch.equal(images, torch.where(covered, partners.view(-1, 1, 1), rows.view(-1, 1, 1)))
        share = 1 - float(covered.float().mean())
    else:
        share = float((images[0, 0, 0] - partners[0]) / (rows[0] - partners[0]))
        expected = (share * rows + (1 - share) * partners).view(-1, 1, 1).expand_as(images)
        torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
    assert 0 < share < 1
    # the classes of the rows under the names of the model, and a tenth for all three
    hard = torch.eye(3)[torch.tensor([2, 0, 1])[rows.long() % 3]]
    soft = 0.9 * (share * hard + (1 - share) * hard.flip(0)) + 0.1 / 3
    torch.testing.assert_close(batch.targets, soft, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mixing", "box"), [(Mixing(0.8, 0.0), False), (Mixing(0.0, 1.0), True)])
def test_images_and_targets_are_mixed_with_the_mirrored_place(mixing: Mixing, box: bool) -> None:
    batches = make_batches(Unchanged(PREPROCESSING, None, 0.0), mixing=mixing)
    for cursor in (Cursor(0, 0), Cursor(4, 1)):
        mixed_by_hand(batches, cursor, batches.batch(cursor), box)


def test_repeated_images_are_changed_each_time_anew() -> None:
    plain = {"mixing": Mixing(0.0, 0.0), "order": Order(ROWS, 6, seed=3, repeats=3)}
    rows = make_batches(Unchanged(PREPROCESSING, None, 0.0), **plain).batch(Cursor()).pixel_values[:, 0, 0, 0]
    assert len(rows.unique()) == 2
    changed = make_batches(VIEWS["gentle drawings"], **plain).batch(Cursor()).pixel_values
    assert len(torch.unique(changed.flatten(1), dim=0)) == 6


def test_without_changes_of_photographs_their_middle_is_seen() -> None:
    split = make_split(photographs=True)
    whole = VIEWS["photographs"].evaluation(split.pictures, range(ROWS))
    assert whole.shape == (ROWS, 3, SIZE, SIZE)
    parts = [VIEWS["photographs"].evaluation(split.pictures, part) for part in (range(5), range(5, ROWS))]
    assert torch.equal(torch.cat(parts), whole)


def test_drawings_are_seen_whole_in_evaluation() -> None:
    split = make_split()
    seen = VIEWS["drawings"].evaluation(split.pictures, range(3, 7))
    torch.testing.assert_close(seen, PREPROCESSING.normalise(split.pictures.pixels(range(3, 7)) / 255))


@pytest.mark.parametrize(("views", "flipped"), [(DeitPhotographs, {True, False}), (Drawings, {False})])
def test_photographs_are_flipped_and_drawings_are_not(views: Any, flipped: set[bool]) -> None:
    """Of images that grow brighter from left to right."""
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    pictures, places = HeldPictures([encoded(ramp)] * 40, "somewhere"), np.arange(40)
    pixels = views(PREPROCESSING, None, 0.0).training(pictures, places, Order(40, 40, seed=0).step(Cursor()), places)
    right, left = pixels[..., SIZE // 2 :].mean((1, 2, 3)), pixels[..., : SIZE // 2].mean((1, 2, 3))
    assert set((right < left).tolist()) == flipped


def test_a_split_is_read_by_names_of_classes(tmp_path: Path) -> None:
    rows = [{"image": drawing(row), "class": name} for row, name in enumerate(("cat", "ant", "cat"))]
    dataset = write_dataset(tmp_path, {"train": rows}, classes=list(CLASSES))
    split = load_classes(dataset, "train")
    assert class_names(dataset) == CLASSES and split.classes.tolist() == [2, 0, 2] and len(split) == 3
    assert split.pictures.contents([1]) == [drawing(1)] and split.examples_per_row is None


@pytest.mark.parametrize("facts", [{}, {"classes": []}, {"classes": ["ant", "ant"]}, {"classes": "ant"}])
def test_a_manifest_without_classes_is_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    dataset = write_dataset(tmp_path, {"train": [{"image": drawing(0), "class": "ant"}]}, **facts)
    with pytest.raises(DataError, match=r"manifest\.json must list the names of its classes, each once"):
        load_classes(dataset, "train")


def test_a_class_that_is_not_listed_is_named(tmp_path: Path) -> None:
    rows = [{"image": drawing(0), "class": "ant"}, {"image": drawing(1), "class": "gnu"}]
    dataset = write_dataset(tmp_path, {"train": rows}, classes=list(CLASSES))
    with pytest.raises(DataError, match="split train, row 1: class 'gnu' is not among"):
        load_classes(dataset, "train")


def test_the_built_in_classes_load() -> None:
    dataset = open_dataset("builtin:emoji_classes")
    split = load_classes(dataset, "val")
    assert len(split) == dataset.manifest["rows"]["val"]
    assert set(split.classes.tolist()) <= set(range(len(dataset.manifest["classes"])))
    labels = torch.arange(len(class_names(dataset)))
    batches = ClassBatches(split, Order(len(split), 8, 0), VIEWS["drawings"], Mixing(0.8, 1.0), labels, 0.1)
    assert batches.batch(Cursor()).pixel_values.isfinite().all()
