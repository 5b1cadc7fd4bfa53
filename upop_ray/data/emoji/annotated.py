"""The rows of the emoji shards as objects, and their measured colours, read once in a process."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upop_ray.data.emoji.colours import shares
from upop_ray.data.once import read_once
from upop_ray.data.shards import ShardedDataset


@dataclass(frozen=True)
class Emoji:
    """One drawing with its annotations; the fields are columns of the shards."""

    image: bytes
    concept: str
    label: str
    tags: tuple[str, ...]
    held_out_tags: tuple[str, ...]
    group: str
    subgroup: str
    licence: str


def read_emoji(base: ShardedDataset, split: str) -> tuple[Emoji, ...]:
    """Return the drawings of a split in the order of the shards.

    :raises DataError: see :meth:`ShardedDataset.split`
    """
    return read_once(_emoji, base, split)


def read_colours(base: ShardedDataset, split: str) -> NDArray[np.float64]:
    """Return the share of each colour in the ink of each drawing, (drawings, colours), in the order of `read_emoji`."""
    return read_once(_colours, base, split)


def _emoji(base: ShardedDataset, split: str) -> tuple[Emoji, ...]:
    names = [field.name for field in fields(Emoji)]
    table = base.split(split, names)
    columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in names}
    for name in ("tags", "held_out_tags"):
        columns[name] = list(map(tuple, columns[name]))
    return tuple(Emoji(*values) for values in zip(*columns.values(), strict=True))


def _colours(base: ShardedDataset, split: str) -> NDArray[np.float64]:
    return shares([row.image for row in read_emoji(base, split)])
