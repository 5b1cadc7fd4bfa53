"""Data sets that are derived in memory from the shards of another one, and look like sharded ones.

Nothing is stored: what a recipe makes is a function of the base's shards and of the recipe's version, and so is the
content hash.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from upop_ray.data.shards import SCHEMA_VERSION, ShardedDataset
from upop_ray.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Derived:
    """What a recipe makes.

    :param tables: the rows of each split, in the order train, val, test
    :param facts: what the manifest says besides, for instance the list of answers
    """

    tables: Mapping[str, pa.Table]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How a data set is derived.

    :param version: counts up with every change of what `derive` returns
    :param derive: deterministic; each split from the rows of that split of the base, and what it knows from training
    """

    version: int
    derive: Callable[[ShardedDataset], Derived]


class DerivedDataset(ShardedDataset):
    """A data set that its recipe makes when a split or the manifest is first asked for; the content hash needs neither.

    :param name: what :func:`upop_ray.data.shards.open_dataset` knows it by
    """

    def __init__(self, name: str, base: ShardedDataset, recipe: Recipe) -> None:
        for field, value in {"root": name, "storage_options": {}, "_base": base, "_recipe": recipe}.items():
            object.__setattr__(self, field, value)

    _base: ShardedDataset
    _recipe: Recipe

    @cached_property
    def content_hash(self) -> str:
        """The hash over the name, the recipe's version and the content hash of the base."""
        parts = (self.root, str(self._recipe.version), self._base.content_hash)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def manifest(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What a manifest file would say; it lists no files."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.root,
            "base": {"content_hash": self._base.content_hash, "recipe": self._recipe.version},
            "rows": {split: table.num_rows for split, table in self._derived.tables.items()},
            **self._derived.facts,
            "content_hash": self.content_hash,
        }

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return SPLITS

    def split(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a split as one table, in a fixed order.

        :param columns: only these; all without it
        :raises DataError: unknown split or missing column; see :meth:`ShardedDataset.split` for the base
        """
        if name not in self.splits:
            raise DataError(f"{self.root}: no split {name!r}; it has {', '.join(self.splits)}")
        table = self._derived.tables[name]
        missing = sorted(set(columns or ()) - set(table.column_names))
        if missing:
            raise DataError(f"{self.root}: no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
        return table.select(list(columns)) if columns else table

    @cached_property
    def _derived(self) -> Derived:
        return self._recipe.derive(self._base)
