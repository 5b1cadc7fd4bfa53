"""What every converter is made of: items that point to files of a source, and what is known of the data set.

A converter reads annotations only. Its items are cheap; the files that they point to are read later, shard by shard.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from upop_ray.data.converters.source import Source

Row = dict[str, Any]

_STRINGS = pa.list_(pa.string())
_QUESTION = pa.struct(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("answers", _STRINGS),
        ("weights", pa.list_(pa.float32())),
    ]
)
#: columns of shards by what they are for
CAPTIONED = pa.schema([("image", pa.binary()), ("image_id", pa.string()), ("captions", _STRINGS)])
ASKED = pa.schema([("image", pa.binary()), ("image_id", pa.string()), ("questions", pa.list_(_QUESTION))])
PAIRED = pa.schema(
    [
        ("left", pa.binary()),
        ("right", pa.binary()),
        ("statement", pa.string()),
        ("label", pa.bool_()),
        ("identifier", pa.string()),
    ]
)
CLASSIFIED = pa.schema([("image", pa.binary()), ("class", pa.string()), ("image_id", pa.string())])
SEGMENTED = pa.schema([("image", pa.binary()), ("segmentation", pa.binary()), ("image_id", pa.string())])


class Piece(NamedTuple):
    """Where the bytes of an image lie: a file of the source, or a part of one.

    :param path: relative to the source
    :param offset: where it begins in the file
    :param size: its bytes; None is up to the end of the file
    :param member: its name in an archive
    """

    path: str
    offset: int = 0
    size: int | None = None
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else self.path


class Item(NamedTuple):
    """A row that was not read yet.

    :param id: different for every row of the data set
    :param files: what becomes the image columns
    :param values: the other columns
    """

    id: str
    files: Mapping[str, Piece]
    values: Mapping[str, Any]


class Count(NamedTuple):
    """How much of a part of the published data set the source has.

    :param of: what is counted, for instance `images`
    """

    found: int
    published: int
    of: str

    def __str__(self) -> str:
        return f"{self.found:,} of {self.published:,} {self.of}"


@dataclass(frozen=True)
class Conversion:
    """What the annotations of a data set say.

    :param splits: the rows of `train`, `val` and `test`
    :param origin: for each split, which part of the published data set it is
    :param facts: what the manifest says besides, for instance the names of classes
    :param skipped: how many of what kind of annotation were left out
    :param notes: what was changed or made, for the data card
    :param counts: parts of the published data set, of which it is known how much they hold
    """

    splits: Mapping[str, Sequence[Item]]
    origin: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    counts: Mapping[str, Count] = field(default_factory=dict)


def unchanged(row: Row) -> Row:
    """A row as it was read."""
    return row


@dataclass(frozen=True)
class Converter:
    """A data set that can be converted.

    :param expects: the layout of its folder, in words
    :param licence: as its owners state it
    :param read: reads the annotations; raises DataError
    :param finish: row -> row, for what is more than the bytes of files; raises ValueError for a row that is broken
    :param version: counts up with every change of what `read` or `finish` return
    """

    name: str
    title: str
    home: str
    licence: str
    expects: str
    schema: pa.Schema
    read: Callable[[Source], Conversion]
    finish: Callable[[Row], Row] = unchanged
    version: int = 1
