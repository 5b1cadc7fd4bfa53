"""Statements about two images that are the same one, from the pairs: what a model learns to read before it compares.

A true "both images show a bird" is true of each of its images beside itself, and a true "neither image shows a bird"
makes the first statement false of each of its images beside itself. Trained on pairs from the start, a small model
stays at chance: neither image nor statement alone says anything, and half of what an image and a statement say together
is overruled by the other image.
"""

import pyarrow as pa

from upop_ray.data.derived import SPLITS, Derived, Recipe
from upop_ray.data.shards import ShardedDataset

_BOTH = {"neither image shows": "both images show", "neither image is": "both images are"}


def derive(pairs: ShardedDataset) -> Derived:
    """Return the rows of each split, with the columns of the pairs.

    :param pairs: `builtin:emoji_pairs`
    """
    return Derived({split: _table(pairs.split(split)) for split in SPLITS}, {})


def _table(pairs: pa.Table) -> pa.Table:
    rows = []
    for row in pairs.to_pylist():
        statement = row["statement"]
        beginning = next((start for start in _BOTH if statement.startswith(start)), None)
        if not row["label"] or not (beginning or statement.startswith("both images")):
            continue
        asked = statement if beginning is None else statement.replace(beginning, _BOTH[beginning])
        rows += [
            {"left": image, "right": image, "statement": asked, "label": beginning is None}
            for image in (row["left"], row["right"])
        ]
    return pa.Table.from_pylist(rows)


RECIPE = Recipe(version=1, derive=derive)
