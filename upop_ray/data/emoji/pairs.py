"""Reasoning over two images: is a statement about a pair of emoji true?

The statements are templates over real annotations, the CLDR subgroups and wider kinds of them, and over measured main
colours. Both images of a pair are of one split; concepts of validation and test are seen in training, in drawings of
other artists. Within a split each statement is true of as many pairs as it is false of, and two images show the same
kind of thing about as often in true pairs as in false ones: neither the statement nor the images alone tell the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from upop_ray.data.derived import SPLITS, Derived, Recipe
from upop_ray.data.emoji.annotated import Emoji, read_colours, read_emoji
from upop_ray.data.emoji.colours import COLOURS, DOMINANT, MINOR
from upop_ray.data.emoji.nouns import WIDE_NOUNS, Noun, frequent_nouns
from upop_ray.data.shards import ShardedDataset

_SEED = 20_002
_PAIRS = {"train": 16_000, "val": 2_000, "test": 2_000}
#: something is stated in a split that shows it at least as often
_MIN_DRAWINGS = 3
#: of the pairs, the share of statements about subgroups, wider nouns and colours
_SHARES = {"subgroup": 0.35, "wide": 0.4, "colour": 0.25}
#: of the pairs of which neither has it, the share that show one kind of thing: as the templates are, pairs of one kind
#: are then as often true (0.389 + 0.167 x 0.82 of them) as false (0.139 + 0.472 x 0.82)
_ALIKE = 0.82

_SCHEMA = pa.schema([("left", pa.binary()), ("right", pa.binary()), ("statement", pa.string()), ("label", pa.bool_())])

# whether the left and the right image have it
Pattern = tuple[bool, bool]
_BOTH, _LEFT, _RIGHT, _NONE = (True, True), (True, False), (False, True), (False, False)


@dataclass(frozen=True)
class Template:
    """A form of statements, and which pairs it is true and false of, in turn.

    Most forms are true of what matches: a model that learns to match a statement's noun is on its way, where forms
    that cancel out would leave it at chance.
    """

    text: str
    true: tuple[Pattern, ...]
    false: tuple[Pattern, ...]


TEMPLATES = (
    Template("both images {plural}", (_BOTH,), (_LEFT, _RIGHT, _NONE)),
    Template("at least one image {singular}", (_LEFT, _RIGHT, _BOTH), (_NONE,)),
    Template("the left image {singular}", (_LEFT, _BOTH), (_RIGHT, _NONE)),
    Template("the right image {singular}", (_RIGHT, _BOTH), (_LEFT, _NONE)),
    Template("exactly one image {singular}", (_LEFT, _RIGHT), (_BOTH, _NONE)),
    Template("neither image {singular}", (_NONE,), (_LEFT, _RIGHT, _BOTH)),
)


class Property(NamedTuple):
    """Something that an image clearly has, clearly lacks, or neither.

    :param singular: the verb phrase of one image, as in "shows a bird"
    :param plural: of two, as in "show a bird"
    :param negated: what follows "the other one", as in "does not"
    :param has: the rows that have it
    :param lacks: bool (rows,)
    """

    singular: str
    plural: str
    negated: str
    has: NDArray[np.intp]
    lacks: NDArray[np.bool_]


class Pair(NamedTuple):
    """Two rows, and whether the statement is true of them."""

    left: int
    right: int
    statement: str
    label: bool


def derive(base: ShardedDataset) -> Derived:
    """Return the pairs of each split; `statements` counts the different ones."""
    tables, statements = {}, {}
    for number, split in enumerate(SPLITS):
        draws = np.random.default_rng([_SEED, number])
        pairs = _pairs(_properties(base, split), _PAIRS[split], draws)
        tables[split] = _table(read_emoji(base, split), [pairs[place] for place in draws.permutation(len(pairs))])
        statements[split] = len({pair.statement for pair in pairs})
    return Derived(tables, {"statements": statements})


def _properties(base: ShardedDataset, split: str) -> dict[str, list[Property]]:
    subgroups = [row.subgroup for row in read_emoji(base, split)]
    # training decides on the nouns, so that no statement is new in evaluation
    nouns = frequent_nouns(read_emoji(base, "train")).values()
    wide = {noun.phrase for noun in WIDE_NOUNS}
    families = {
        "subgroup": [_showing(noun, subgroups) for noun in nouns if noun.phrase not in wide],
        "wide": [_showing(noun, subgroups) for noun in WIDE_NOUNS],
        "colour": [
            _coloured(name, of_rows) for name, of_rows in zip(COLOURS, read_colours(base, split).T, strict=True)
        ],
    }
    return {name: [each for each in family if len(each.has) >= _MIN_DRAWINGS] for name, family in families.items()}


def _showing(noun: Noun, subgroups: list[str]) -> Property:
    has = np.array([subgroup in noun.subgroups for subgroup in subgroups])
    lacks = np.array([noun.clearly_not(subgroup) for subgroup in subgroups])
    return Property(f"shows {noun.phrase}", f"show {noun.phrase}", "does not", np.flatnonzero(has), lacks)


def _coloured(name: str, shares: NDArray[np.float64]) -> Property:
    has, lacks = np.flatnonzero(shares >= DOMINANT), shares <= MINOR
    return Property(f"is mostly {name}", f"are mostly {name}", "is not", has, lacks)


def _pairs(families: dict[str, list[Property]], total: int, draws: np.random.Generator) -> list[Pair]:
    pairs: list[Pair] = []
    for name, family in families.items():
        statements = list(product(family, TEMPLATES))
        # as many true as false; what is left over goes to some of the statements
        count, left = divmod(int(total * _SHARES[name]) // 2, len(statements))
        order = draws.permutation(len(statements))
        for place, (subject, template) in enumerate(statements):
            others = _others(subject, family)
            pairs += _of_statement(subject, others, template, count + int(order[place] < left), draws)
    return pairs


def _others(subject: Property, family: list[Property]) -> list[NDArray[np.intp]]:
    """The rows that lack a property, by what they have instead: so they are shown as often as what is asked for."""
    lacking = [other.has[subject.lacks[other.has]] for other in family if other is not subject]
    return [rows for rows in lacking if len(rows)]


def _of_statement(
    subject: Property, others: list[NDArray[np.intp]], template: Template, count: int, draws: np.random.Generator
) -> list[Pair]:
    text = template.text.format(singular=subject.singular, plural=subject.plural, negated=subject.negated)

    def other() -> NDArray[np.intp]:
        return others[draws.integers(len(others))]

    def draw(pattern: Pattern) -> Iterator[int]:
        if pattern == _NONE and draws.random() < _ALIKE:
            sources = [other()] * 2
        else:
            sources = [subject.has if has else other() for has in pattern]
        return (int(rows[draws.integers(len(rows))]) for rows in sources)

    # in the order drawn; a set would come in another
    pairs: dict[Pair, None] = {}
    for label, patterns in ((True, template.true), (False, template.false)):
        start = int(draws.integers(len(patterns)))
        turns = cycle(patterns[start:] + patterns[:start])
        wanted = len(pairs) + count
        while len(pairs) < wanted:
            left, right = draw(next(turns))
            if left != right:
                pairs[Pair(left, right, text, label)] = None
    return list(pairs)


def _table(rows: Sequence[Emoji], pairs: list[Pair]) -> pa.Table:
    images = pa.array([row.image for row in rows], pa.binary())
    left, right, statements, labels = zip(*pairs, strict=True)
    return pa.table([images.take(pa.array(left)), images.take(pa.array(right)), statements, labels], schema=_SCHEMA)


RECIPE = Recipe(version=2, derive=derive)
