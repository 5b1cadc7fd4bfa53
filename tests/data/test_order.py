"""Orders: every example at most once an epoch, the same for all world sizes, exact at any cursor, and well shuffled."""

import numpy as np
import pytest

from upop_ray.data.order import BatchOrder, Cursor, Order, Shuffle, StreamOrder, Use, generator
from upop_ray.errors import ConfigError

#: row groups of unequal shards
BLOCKS = (64, 64, 64, 7, 64, 64, 1, 64, 64, 30, 64)
ROWS = sum(BLOCKS)
SHUFFLE = Shuffle(lanes=4, buffer=48)


def stream(batch_size: int = 16, seed: int = 0, **other: object) -> StreamOrder:
    return StreamOrder(BLOCKS, batch_size, seed, **({"shuffle": SHUFFLE} | other))  # type: ignore[arg-type]


def epoch_of(order: BatchOrder, epoch: int = 0, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """All examples that a rank sees in an epoch, int64 (steps, b)."""
    return np.stack([order.step(Cursor(epoch, index), rank, world_size).own for index in range(len(order))])


def block_of(rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(BLOCKS), rows, side="right")


@pytest.mark.parametrize("order", [Order(ROWS, 16, 0), stream(), stream(shuffle=Shuffle(3, 20))])
def test_every_row_comes_at_most_once_and_hardly_any_is_left_out(order: BatchOrder) -> None:
    seen = epoch_of(order).ravel()
    assert len(set(seen.tolist())) == len(seen) and set(seen.tolist()) <= set(range(ROWS))
    assert ROWS - len(seen) < 16 + 4


def test_what_is_left_out_is_another_in_each_epoch() -> None:
    left_out = [set(range(ROWS)) - set(epoch_of(stream(), epoch).ravel().tolist()) for epoch in range(3)]
    assert left_out[0] != left_out[1] != left_out[2]


@pytest.mark.parametrize("order", [Order(ROWS, 16, 0), stream(), stream(shuffle=Shuffle(3, 20))])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_take_as_many_steps_and_share_the_global_batch(order: BatchOrder, world_size: int) -> None:
    parts = [epoch_of(order, 1, rank, world_size) for rank in range(world_size)]
    assert {part.shape for part in parts} == {(len(order), 16 // world_size)}
    assert np.array_equal(np.concatenate(parts, 1), epoch_of(order, 1))


def test_a_rank_opens_the_blocks_of_its_own_lanes_alone() -> None:
    opened = [set(block_of(epoch_of(stream(), 2, rank, 4)).ravel().tolist()) for rank in range(4)]
    # neighbours share the block that their border cuts
    assert sum(map(len, opened)) <= len(BLOCKS) + 3


def test_few_blocks_are_open_at_a_time() -> None:
    """A window spans at most as many blocks as fit into it, and two more."""
    order = StreamOrder((16,) * 400, 32, 0, Shuffle(lanes=4, buffer=160))
    open_blocks = [set((order.step(Cursor(0, index)).own // 16).tolist()) for index in range(len(order))]
    within = [set.union(*open_blocks[first : first + 20]) for first in range(len(order) - 20)]
    # 20 steps are 160 rows of each lane: one window of each, or parts of two
    assert max(map(len, within)) <= 4 * (2 * 160 // 16 + 2)


def test_a_step_needs_its_cursor_alone() -> None:
    sequence = epoch_of(stream(), 3)
    for index in (0, 5, len(stream()) - 1):
        assert np.array_equal(stream().step(Cursor(3, index)).whole, sequence[index])
        assert np.array_equal(
            stream().step(Cursor(3, index)).draws.random(4), stream().step(Cursor(3, index)).draws.random(4)
        )


def test_epochs_and_seeds_differ() -> None:
    first, second, other = epoch_of(stream(), 0), epoch_of(stream(), 1), epoch_of(stream(seed=1), 0)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    assert not np.array_equal(np.unique(block_of(first[0])), np.unique(block_of(second[0])))


def test_shuffled_as_well_as_all_at_once() -> None:
    """Batches of a split that is sorted by class, the worst case, have most of the classes of random batches."""
    classes, blocks = np.arange(40_000) // 400, (100,) * 400
    order = StreamOrder(blocks, 128, 0, Shuffle(lanes=8, buffer=2048))
    whole = Order(40_000, 128, 0)
    found, expected = (
        np.mean([len(np.unique(classes[each.step(Cursor(0, index)).whole])) for index in range(len(each))])
        for each in (order, whole)
    )
    assert found > 0.8 * expected
    # two of n rows are n / 3 apart, and next to nothing where both are of the same one of the window's 20.48 blocks
    distances = [np.abs(np.diff(order.step(Cursor(0, index)).whole)).mean() for index in range(len(order))]
    assert np.mean(distances) == pytest.approx(40_000 / 3 * (1 - 100 / 2048), rel=0.02)


def test_a_small_split_is_shuffled_as_a_whole() -> None:
    order = StreamOrder((50, 50), 8, 0)
    assert order.lanes == 1
    together = np.zeros((100, 100), bool)
    for epoch in range(60):
        for batch in epoch_of(order, epoch):
            together[np.ix_(batch, batch)] = True
    assert together.mean() > 0.95


def test_the_lanes_divide_the_batch() -> None:
    assert StreamOrder((10_000,), 12, 0, Shuffle(8, 100)).lanes == 6
    assert StreamOrder((10_000,), 7, 0, Shuffle(5, 100)).lanes == 1


COUNTS = np.random.default_rng(0).integers(0, 9, ROWS)


def test_examples_of_a_row_belong_to_its_block_and_come_once() -> None:
    order = stream(counts=COUNTS)
    seen = epoch_of(order).ravel()
    assert len(set(seen.tolist())) == len(seen) and COUNTS.sum() - len(seen) < 16 + 4
    row_of = np.repeat(np.arange(ROWS), COUNTS)
    opened = [set(block_of(row_of[epoch_of(order, 0, rank, 4)]).ravel().tolist()) for rank in range(4)]
    assert sum(map(len, opened)) <= len(BLOCKS) + 3


def test_examples_of_a_row_are_spread() -> None:
    """Five captions each: never two of an image in a batch, where random batches have many."""
    order = StreamOrder((100,) * 80, 64, 0, Shuffle(8, 500), counts=np.full(8000, 5))
    batches = [epoch_of(order, epoch) // 5 for epoch in range(2)]
    assert all(len(set(batch.tolist())) == 64 for epoch in batches for batch in epoch)
    assert sum(len(set(batch.tolist())) < 64 for batch in epoch_of(Order(40_000, 64, 0)) // 5) > 50


@pytest.mark.parametrize("order", [Order(ROWS, 16, 0, repeats=4), stream(repeats=4)])
def test_repeats_come_in_the_same_batch_and_take_no_more_steps(order: BatchOrder) -> None:
    batches = epoch_of(order)
    assert len(batches) == ROWS // 16
    for batch in batches:
        assert np.array_equal(np.unique(batch, return_counts=True)[1], [4] * 4)
    assert len(np.unique(batches)) == 4 * len(batches)


@pytest.mark.parametrize("size", [0, ROWS + 1])
def test_a_batch_larger_than_the_split_is_refused(size: int) -> None:
    for make in (lambda: Order(ROWS, size, 0), lambda: stream(size)):
        with pytest.raises(ConfigError, match=f"batch_size: got {size}; use 1 to {ROWS}"):
            make()


def test_every_use_draws_from_a_stream_of_its_own() -> None:
    drawn = {(use, index): generator(use, 3, 1, index).random() for use in Use for index in range(1, 3)}
    # numpy fills up short seeds with 0: this is the stream of the first step too
    drawn["shuffled"] = np.random.default_rng([3, 1]).random()
    assert len(set(drawn.values())) == len(drawn)
