"""Splits that are read once in a process: warm replicas go from point to point with them."""

from collections.abc import Callable
from typing import Any, TypeVar

from upop_ray.data.shards import ShardedDataset

Split = TypeVar("Split")

_READ: dict[tuple[Any, ...], Any] = {}


def read_once(read: Callable[[ShardedDataset, str], Split], dataset: ShardedDataset, name: str) -> Split:
    """What `read` makes of a split, remembered by its content; not to be changed."""
    key = (read, dataset.root, dataset.content_hash, dataset.reading, name)
    if key not in _READ:
        _READ[key] = read(dataset, name)
    split: Split = _READ[key]
    return split
