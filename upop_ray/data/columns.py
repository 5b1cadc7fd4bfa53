"""What the columns of a data set are called in its files, where that differs from what tasks ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from upop_ray.errors import DataError


class Columns:
    """Columns that are called in the files as tasks call them."""

    def offered(self, names: Sequence[str]) -> list[str]:
        """What may be asked for.

        :param names: columns of a file
        """
        return list(names)

    def stored(self, wanted: Sequence[str], names: Sequence[str], place: str) -> list[str]:
        """The columns of a file that are to be read for those that are wanted, in their order.

        :param names: columns of the file
        :param place: names the file in errors
        :raises DataError: it has no such column
        """
        missing = sorted(set(wanted) - set(names))
        if missing:
            raise DataError(f"{place}: no column {', '.join(missing)}; it has {', '.join(names)}")
        return list(wanted)

    def named(self, table: pa.Table, wanted: Sequence[str]) -> pa.Table:
        """What was read as what is wanted.

        :param table: the columns that :meth:`stored` returned for `wanted`
        :raises DataError: a column does not hold what is wanted
        """
        return table


AS_STORED = Columns()


@dataclass(frozen=True)
class RenamedColumns(Columns):
    """Columns of files that others made, by name and by what they hold.

    :param names: ours -> that in the files
    :param candidates: ours -> several in the files that could be meant, so that none was chosen
    :param images: columns in the files that hold images as struct of `bytes` and `path`
    :param classes: columns in the files that hold numbers of classes -> the names of these
    """

    names: Mapping[str, str]
    candidates: Mapping[str, Sequence[str]] = field(default_factory=dict)
    images: frozenset[str] = frozenset()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def offered(self, names: Sequence[str]) -> list[str]:
        """Ours, and those that keep their names."""
        return [*self.names, *(name for name in names if name not in {*self.names, *self.names.values()})]

    def stored(self, wanted: Sequence[str], names: Sequence[str], place: str) -> list[str]:
        """See :meth:`Columns.stored`."""
        found = [self.names.get(name, name) for name in wanted]
        for ours, theirs in zip(wanted, found, strict=True):
            if theirs in names:
                continue
            cure = f"name it in data.columns, as in {{{ours}: {names[0] if names else 'NAME'}}}"
            if ours in self.candidates:
                several = ", ".join(self.candidates[ours])
                raise DataError(f"{place}: several columns could be {ours}: {several}; {cure}")
            raise DataError(f"{place}: no column {theirs}; it has {', '.join(names)}; {cure}")
        return found

    def named(self, table: pa.Table, wanted: Sequence[str]) -> pa.Table:
        """See :meth:`Columns.named`."""
        return pa.table({ours: self._converted(table, ours) for ours in wanted})

    def _converted(self, table: pa.Table, ours: str) -> pa.ChunkedArray:
        theirs = self.names.get(ours, ours)
        column = table[theirs]
        if theirs in self.images:
            return _image_bytes(column, theirs)
        if ours == "class" and theirs in self.classes:
            return _class_names(column, theirs, self.classes[theirs])
        if ours == "captions" and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return _one_each(column)
        return column


def _image_bytes(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    content = pc.struct_field(column, "bytes")
    if content.null_count:
        raise DataError(f"column {name}: {content.null_count} rows hold a path and no image; store the images with it")
    return content


def _class_names(column: pa.ChunkedArray, name: str, names: Sequence[str]) -> pa.ChunkedArray:
    outside = pc.sum(pc.invert(pc.and_(pc.greater_equal(column, 0), pc.less(column, len(names))))).as_py()
    if outside or column.null_count:
        raise DataError(f"column {name}: {(outside or 0) + column.null_count} rows have no class; remove them")
    return pc.take(pa.array(list(names), pa.string()), column)


def _one_each(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)


def joined(tables: Sequence[pa.Table], places: Sequence[str]) -> pa.Table:
    """The rows of all tables; what is stored in another type than in the first one is converted to that.

    :param places: names each table in errors
    :raises DataError: columns differ, or one cannot be converted
    """
    first = tables[0].schema.remove_metadata()
    return pa.concat_tables([_like(first, *each, places[0]) for each in zip(tables, places, strict=True)])


def _like(schema: pa.Schema, table: pa.Table, place: str, first: str) -> pa.Table:
    try:
        return table.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException) as error:
        problem = f"its columns are {_types(table.schema)}, those of {first} are {_types(schema)}"
        raise DataError(f"{place}: {problem}; write all files with one schema") from error


def _types(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
