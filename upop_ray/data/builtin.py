"""The built-in data sets that are made where they are used: derived from the emoji shards, or drawn from a package."""

from collections.abc import Callable
from functools import lru_cache, partial

from upop_ray.data import openmoji
from upop_ray.data.derived import DerivedDataset, Recipe
from upop_ray.data.emoji import classes, pairs, questions
from upop_ray.data.shards import ShardedDataset, open_dataset

_BASE = "builtin:emoji"


@lru_cache
def _derived(name: str, recipe: Recipe) -> ShardedDataset:
    return DerivedDataset(name, open_dataset(_BASE), recipe)


MADE: dict[str, Callable[[], ShardedDataset]] = {
    "builtin:emoji_questions": partial(_derived, "builtin:emoji_questions", questions.RECIPE),
    "builtin:emoji_pairs": partial(_derived, "builtin:emoji_pairs", pairs.RECIPE),
    "builtin:emoji_classes": partial(_derived, "builtin:emoji_classes", classes.RECIPE),
    "builtin:openmoji": openmoji.open_openmoji,
}
