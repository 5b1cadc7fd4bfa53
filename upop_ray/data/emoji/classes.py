"""Classification: which of the subgroups of the Unicode CLDR a drawing belongs to.

Concepts of validation and test are seen in training, in drawings of other artists.
"""

from collections import Counter

import pyarrow as pa

from upop_ray.data.derived import SPLITS, Derived, Recipe
from upop_ray.data.emoji.annotated import Emoji, read_emoji
from upop_ray.data.emoji.nouns import MIN_DRAWINGS, NOUNS
from upop_ray.data.shards import ShardedDataset

_SCHEMA = pa.schema([("image", pa.binary()), ("class", pa.string()), ("licence", pa.string())])


def derive(base: ShardedDataset) -> Derived:
    """Return the drawings of all classes with enough training images; `classes` is their sorted list."""
    images = Counter(NOUNS[row.subgroup].name for row in read_emoji(base, "train"))
    classes = sorted(name for name, count in images.items() if count >= MIN_DRAWINGS)
    tables = {split: _table(read_emoji(base, split), classes) for split in SPLITS}
    return Derived(tables, {"classes": classes})


def _table(rows: tuple[Emoji, ...], classes: list[str]) -> pa.Table:
    records = [
        {"image": row.image, "class": NOUNS[row.subgroup].name, "licence": row.licence}
        for row in rows
        if NOUNS[row.subgroup].name in classes
    ]
    return pa.Table.from_pylist(records, schema=_SCHEMA)


RECIPE = Recipe(version=1, derive=derive)
