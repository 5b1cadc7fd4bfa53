"""Reading the annotations of a data set: whatever is wrong with them is said in one line."""

import posixpath
from collections.abc import Iterable, Mapping

from upop_ray.data.converters.base import Conversion, Converter, Count, Item, Piece
from upop_ray.data.converters.source import Source
from upop_ray.errors import DataError

#: what code that reads a document meets where the document has another form
_OTHER_FORM = (KeyError, TypeError, AttributeError, ValueError, IndexError)


def read_annotations(converter: Converter, source: Source) -> Conversion:
    """What a converter makes of the annotations, of which every row can be written.

    :raises DataError: see :attr:`Converter.read`; the annotations have another form; a split without rows; two rows
        with one id; an image that is there twice, or in two splits; a name that is not UTF-8 or leads out of the folder
    """
    try:
        conversion = converter.read(source)
    except _OTHER_FORM as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        files = ", ".join(source.texts)
        raise source.wrong(f"the annotations{f' ({files})' if files else ''} have another form ({problem})") from error
    for split, items in conversion.splits.items():
        if not items:
            raise DataError(f"{source.root}: the annotations have no row of the split {split}; fetch them again")
        for item in items:
            _check_names(source, item)
    _check_ids(source, conversion.splits)
    _check_images(source, conversion.splits)
    return conversion


def incomplete(conversion: Conversion) -> dict[str, Count]:
    """The parts that hold another number than the published ones."""
    return {part: count for part, count in conversion.counts.items() if count.found != count.published}


def _check_names(source: Source, item: Item) -> None:
    for name in (item.id, *(piece.path for piece in item.files.values())):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            cure = "rename the file, or correct the annotations"
            raise DataError(f"{source.root}: the name {name!a} is not UTF-8; {cure}") from error
    for piece in item.files.values():
        if piece.path.startswith("/") or ".." in piece.path.split("/"):
            raise DataError(f"{source.root}: {piece.path!r} leads out of the folder; name images inside it")


def _check_ids(source: Source, splits: Mapping[str, Iterable[Item]]) -> None:
    seen: dict[str, Item] = {}
    for item in (item for items in splits.values() for item in items):
        first = seen.setdefault(item.id, item)
        if first is not item:
            files = " and ".join(str(next(iter(each.files.values()))) for each in (first, item))
            raise DataError(f"{source.root}: two rows have the id {item.id!r}: {files}; give each its own")


def _check_images(source: Source, splits: Mapping[str, Iterable[Item]]) -> None:
    """An image of several rows could be trained on and held out; only rows about several images share them."""
    seen: dict[Piece, tuple[str, Item]] = {}
    for split, item, piece in ((s, each, p) for s, items in splits.items() for each in items for p in _pieces(each)):
        first_split, first = seen.setdefault(piece, (split, item))
        if first is item:
            continue
        if len(item.files) == 1:
            problem = f"the image {piece} is there twice, with the ids {first.id!r} and {item.id!r}"
            raise DataError(f"{source.root}: {problem}; give it one entry with all that is said of it")
        if first_split != split:
            raise DataError(f"{source.root}: the image {piece} is in {first_split} and in {split}; leave it in one")


def _pieces(item: Item) -> Iterable[Piece]:
    return (piece._replace(path=posixpath.normpath(piece.path)) for piece in item.files.values())
