"""Visual question answering over the emoji.

The questions are templates over real annotations: the CLDR group, subgroup, label and keywords, and the measured main
colour. Concepts of validation and test are seen in training, in drawings of other artists, and some of their questions
are about keywords that training never pairs with the concept. Colours are measured, not annotated. The keyword lists
are incomplete, so that some "no" answers are wrong. Within a split each yes-or-no question is answered with yes as
often as with no.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from upop_ray.data.derived import SPLITS, Derived, Recipe
from upop_ray.data.emoji.annotated import Emoji, read_colours, read_emoji
from upop_ray.data.emoji.colours import COLOURS, MINOR, main_colours
from upop_ray.data.emoji.nouns import WIDE_NOUNS, Noun, frequent_nouns
from upop_ray.data.emoji.topics import TOPICS, Topics
from upop_ray.data.emoji.yes_no import Asked, ask
from upop_ray.data.shards import ShardedDataset

_SEED = 20_001
#: how many topics each drawing is asked about
_TOPIC_ROUNDS = {"train": 2, "val": 1, "test": 1}
# an answer has at most three plain words
_SHORT = re.compile(r"[a-z][a-z'-]*( [a-z'-]+){0,2}")
_YES_NO = {True: "yes", False: "no"}

_QUESTION = pa.struct(
    [("question", pa.string()), ("answers", pa.list_(pa.string())), ("weights", pa.list_(pa.float32()))]
)
_SCHEMA = pa.schema([("image", pa.binary()), ("questions", pa.list_(_QUESTION)), ("licence", pa.string())])

# row, question, answer
Question = tuple[int, str, str]


@dataclass(frozen=True)
class Material:
    """What the questions of a split are made from.

    :param colours: (rows, colours), see :func:`read_colours`
    :param nouns: subgroup -> noun, for subgroups that training shows often
    """

    split: str
    rows: Sequence[Emoji]
    colours: NDArray[np.float64]
    nouns: Mapping[str, Noun]
    topics: Topics


def derive(base: ShardedDataset) -> Derived:
    """Return the questions of each drawing; `answers` are those of training, the most frequent first."""
    training = read_emoji(base, "train")
    nouns, topics = frequent_nouns(training), Topics(training)
    asked: dict[str, list[Question]] = {}
    for number, split in enumerate(SPLITS):
        material = Material(split, read_emoji(base, split), read_colours(base, split), nouns, topics)
        asked[split] = list(_questions(material, np.random.default_rng([_SEED, number])))
    counts = Counter(answer for _, _, answer in asked["train"])
    kept = {split: [question for question in asked[split] if question[2] in counts] for split in SPLITS}
    answers = sorted(counts, key=lambda answer: (-counts[answer], answer))
    tables = {split: _table(read_emoji(base, split), kept[split]) for split in SPLITS}
    return Derived(tables, {"answers": answers, "questions": {split: len(kept[split]) for split in SPLITS}})


def _questions(material: Material, draws: np.random.Generator) -> Iterator[Question]:
    for number, (row, main) in enumerate(zip(material.rows, main_colours(material.colours), strict=True)):
        if row.subgroup in material.nouns:
            yield number, "what kind of thing is it?", material.nouns[row.subgroup].name
        yield number, "which category is it in?", row.group.replace("-", " and ")
        if _SHORT.fullmatch(row.label):
            yield number, "what is it called?", row.label
        if main:
            yield number, "what is the main colour?", main
    for asked in _about_nouns(material, draws):
        yield asked.row, f"does it show {asked.thing}?", _YES_NO[asked.answer]
    for asked in _about_colours(material, draws):
        yield asked.row, f"is it mostly {asked.thing}?", _YES_NO[asked.answer]
    for asked in _about_topics(material, draws):
        yield asked.row, f"is it about {TOPICS[asked.thing]}?", _YES_NO[asked.answer]


def _about_nouns(material: Material, draws: np.random.Generator) -> list[Asked]:
    nouns = {noun.phrase: noun for noun in (*material.nouns.values(), *WIDE_NOUNS)}
    subgroups = [row.subgroup for row in material.rows]
    own = [[phrase for phrase, noun in nouns.items() if subgroup in noun.subgroups] for subgroup in subgroups]
    return ask(own, lambda row, phrase: nouns[phrase].clearly_not(subgroups[row]), draws)


def _about_colours(material: Material, draws: np.random.Generator) -> list[Asked]:
    own = [[main] if main else [] for main in main_colours(material.colours)]
    minor = material.colours <= MINOR
    return ask(own, lambda row, colour: bool(minor[row, COLOURS.index(colour)]), draws)


def _about_topics(material: Material, draws: np.random.Generator) -> list[Asked]:
    topics, rows = material.topics, material.rows
    # what training holds out is asked of in evaluation only
    own = [topics.own(row, held_out=material.split != "train") for row in rows]
    asked: list[Asked] = []
    known: set[tuple[int, str]] = set()

    def denied(row: int, topic: str) -> bool:
        return (row, topic) not in known and topics.denied(rows[row], topic)

    for _ in range(_TOPIC_ROUNDS[material.split]):
        left = [[topic for topic in of_row if (row, topic) not in known] for row, of_row in enumerate(own)]
        asked += ask(left, denied, draws)
        known |= {(question.row, question.thing) for question in asked}
    return asked


def _table(rows: Sequence[Emoji], questions: list[Question]) -> pa.Table:
    of_rows: list[list[dict[str, object]]] = [[] for _ in rows]
    for row, question, answer in questions:
        of_rows[row].append({"question": question, "answers": [answer], "weights": [1.0]})
    columns = [[row.image for row in rows], of_rows, [row.licence for row in rows]]
    return pa.table(columns, schema=_SCHEMA)


RECIPE = Recipe(version=1, derive=derive)
