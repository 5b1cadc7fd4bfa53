"""Pairs of images with statements: reading, swapping, and batches that are the same for every number of ranks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from tests.datasets import drawing, encoded, write_dataset
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Cursor, Order, Rows
from upop_ray.data.pairs import PairBatch, PairBatches, PairSplit, load_pairs, mirrored
from upop_ray.data.pictures import HeldPictures, JoinedPictures, Pictures
from upop_ray.data.shards import open_dataset
from upop_ray.data.views import BlipPhotographs, Drawings, Views
from upop_ray.errors import DataError

ROWS, SIZE, LENGTH = 24, 8, 40
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
DRAWINGS = Drawings(PREPROCESSING)
FIELDS = ("pixel_values", "input_ids", "attention_mask", "labels")


class Unchanged(Drawings):
    """Training sees pixels as they are stored."""

    def training(self, pictures: Pictures, rows: np.ndarray, step: Rows, places: np.ndarray) -> Tensor:
        return pictures.pixels(rows).float()


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """One token a character."""
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(list(text.encode()))
    return ids, (ids > 0).long()


def grey(brightness: int) -> bytes:
    return encoded(np.full((SIZE, SIZE, 3), brightness, np.uint8))


def make_split(apart: int = 100) -> PairSplit:
    """Row n shows brightness n on the left and, so far apart, another on the right."""
    left, right = (HeldPictures([grey(row + more) for row in range(ROWS)], "somewhere") for more in (0, apart))
    statements = pa.chunked_array([[f"row {row} is on the left" for row in range(ROWS)]])
    return PairSplit(JoinedPictures(left, right, ("left", "right")), statements, torch.arange(ROWS) % 2)


def make_batches(views: Views = DRAWINGS, seed: int = 3, size: int = 8, split: PairSplit | None = None) -> PairBatches:
    return PairBatches(split or make_split(), Order(ROWS, size, seed), views, tokenize)


def equal(one: PairBatch, other: PairBatch) -> bool:
    return all(torch.equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


def joined(parts: list[PairBatch]) -> PairBatch:
    """Batches of ranks as one, first images before second ones."""
    halves = [part.pixel_values.chunk(2) for part in parts]
    pixels = torch.cat([half[place] for place in (0, 1) for half in halves])
    return PairBatch(pixels, *(torch.cat([getattr(part, field) for part in parts]) for field in FIELDS[1:]))


@pytest.mark.parametrize("views", [DRAWINGS, BlipPhotographs(PREPROCESSING)])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_parts_of_the_ranks_are_the_global_batch(views: Views, world_size: int) -> None:
    batches = make_batches(views)
    parts = [batches.batch(Cursor(1, 2), rank, world_size) for rank in range(world_size)]
    assert equal(joined(parts), batches.batch(Cursor(1, 2)))


def test_a_batch_depends_on_its_place_and_the_seed_alone() -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    batches = make_batches()
    batches.batch(Cursor(0, 0))
    assert equal(batches.batch(Cursor(2, 1)), make_batches().batch(Cursor(2, 1)))
    assert not equal(batches.batch(Cursor(2, 1)), make_batches(seed=4).batch(Cursor(2, 1)))
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_half_of_the_pairs_are_swapped_together_with_their_statements() -> None:
    batches = make_batches(Unchanged(PREPROCESSING), size=ROWS)
    swaps = []
    for epoch in range(20):
        batch = batches.batch(Cursor(epoch))
        first, second = batch.pixel_values[:, 0, 0, 0].long().chunk(2)
        assert sorted(torch.minimum(first, second).tolist()) == list(range(ROWS))
        for row, other, ids, label in zip(first, second, batch.input_ids, batch.labels, strict=True):
            number, swapped = int(min(row, other)), bool(row >= 100)
            assert abs(row - other) == 100 and label == number % 2
            statement = bytes(ids[ids > 0].tolist()).decode()
            assert statement == f"row {number} is on the {'right' if swapped else 'left'}"
            swaps.append(swapped)
    assert sum(swaps) == pytest.approx(len(swaps) / 2, abs=35)


def test_the_two_images_of_a_pair_change_independently() -> None:
    batch = make_batches(split=make_split(apart=0)).batch(Cursor())
    first, second = batch.pixel_values.chunk(2)
    assert (first != second).flatten(1).any(1).all()


def test_evaluation_shows_rows_in_order_and_without_changes() -> None:
    split = make_split()
    batch = make_batches().evaluation(split, range(5, 9))
    expected = PREPROCESSING.prepare(split.pictures.pixels([5, 6, 7, 8, 29, 30, 31, 32]))
    torch.testing.assert_close(batch.pixel_values, expected)
    assert torch.equal(batch.input_ids, tokenize([f"row {row} is on the left" for row in range(5, 9)])[0])
    assert batch.labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("the left one", "the right one"),
        ("Left of the right dog, left.", "Right of the left dog, right."),
        ("THE LEFT IMAGE", "THE RIGHT IMAGE"),
        ("a bright light is leftover", "a bright light is leftover"),
        ("the left-hand dog's right", "the right-hand dog's left"),
        ("no sides", "no sides"),
    ],
)
def test_words_for_sides_are_swapped(statement: str, expected: str) -> None:
    assert mirrored(statement) == expected
    assert mirrored(expected) == statement


def rows(*pairs: tuple[int, int]) -> list[dict[str, object]]:
    return [
        {"left": drawing(left), "right": drawing(right), "statement": f"{left} {right}", "label": left == right}
        for left, right in pairs
    ]


def test_a_split_joins_both_sides(tmp_path: Path) -> None:
    split = load_pairs(write_dataset(tmp_path, {"train": rows((1, 2), (2, 1), (2, 2))}), "train")
    assert len(split) == 3 and split.examples_per_row is None
    assert split.pictures.contents([0, 1, 2, 3, 4, 5]) == [drawing(number) for number in (1, 2, 2, 2, 1, 2)]
    assert split.labels.tolist() == [0, 0, 1] and split.statements.to_pylist() == ["1 2", "2 1", "2 2"]


def test_a_split_without_rows_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, {"train": rows((1, 2))})
    empty = dataset.split("train").slice(0, 0)
    monkeypatch.setattr(type(dataset), "split", lambda self, name, columns: empty.select(columns))
    with pytest.raises(DataError, match="split train: has no rows"):
        load_pairs(dataset, "train")


def test_the_built_in_pairs_load() -> None:
    dataset = open_dataset("builtin:emoji_pairs")
    split = load_pairs(dataset, "val")
    assert len(split) == dataset.manifest["rows"]["val"]
    assert split.pictures.pixels([0, len(split)]).shape == (2, 3, 64, 64) and set(split.labels.tolist()) == {0, 1}
