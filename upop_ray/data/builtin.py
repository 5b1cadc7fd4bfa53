"""The built-in data sets that are made where they are used: derived from the emoji shards, or drawn from a package."""

from collections.abc import Callable
from functools import lru_cache, partial

from upop_ray.data import openmoji
from upop_ray.data.derived import DerivedDataset, Recipe
from upop_ray.data.emoji import classes, pairs, questions, same
from upop_ray.data.shards import ShardedDataset, open_dataset

_BASE = "builtin:emoji"


@lru_cache
def _derived(name: str, recipe: Recipe, base: str = _BASE) -> ShardedDataset:
    return DerivedDataset(name, open_dataset(base), recipe)


MADE: dict[str, Callable[[], ShardedDataset]] = {
    "builtin:emoji_questions": partial(_derived, "builtin:emoji_questions", questions.RECIPE),
    "builtin:emoji_pairs": partial(_derived, "builtin:emoji_pairs", pairs.RECIPE),
    "builtin:emoji_same": partial(_derived, "builtin:emoji_same", same.RECIPE, "builtin:emoji_pairs"),
    "builtin:emoji_classes": partial(_derived, "builtin:emoji_classes", classes.RECIPE),
    "builtin:openmoji": openmoji.open_openmoji,
}
