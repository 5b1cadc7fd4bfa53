"""Where the members of tar files lie, so that they are read in place and nothing is unpacked."""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from upop_ray.data.converters.base import Piece
from upop_ray.data.converters.source import Source
from upop_ray.errors import DataError

_CHUNK = 2**20


def members(source: Source, name: str) -> Iterator[Piece]:
    """The files in an uncompressed tar file, in its order.

    :raises DataError: it is not such a file, or is cut off
    """
    yield from _members(source, name, 0, (source.root / name).stat().st_size, "")


def nested(source: Source, name: str) -> Iterator[tuple[str, Piece]]:
    """The files in the tar files in a tar file, each with the name of the inner one without its suffix.

    :raises DataError: see :func:`members`
    """
    for inner in members(source, name):
        stem = PurePosixPath(inner.member).stem
        end = inner.offset + (inner.size or 0)
        yield from ((stem, piece) for piece in _members(source, name, inner.offset, end, inner.member))


def _members(source: Source, name: str, start: int, end: int, inside: str) -> Iterator[Piece]:
    path = source.root / name
    try:
        with path.open("rb") as file:
            file.seek(start)
            # a tar file is read from where its file object stands, so one inside another needs no copy
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.offset_data + member.size > end:
                        raise _cut_off(str(path), member.name)
                    if member.isfile():
                        member_name = f"{inside}/{member.name}" if inside else member.name
                        yield Piece(name, member.offset_data, member.size, member_name)
                # after the last member stand two blocks of zeros; where they lack, more may
                if archive.offset + tarfile.BLOCKSIZE > end:
                    raise _cut_off(str(path), "its end")
                _require_empty(file, archive.offset, end, f"{path}{f', {inside}' if inside else ''}")
    except tarfile.TarError as error:
        raise DataError(
            f"{path}{f', {inside}' if inside else ''}: not a whole tar file: {error}; fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _require_empty(file: BinaryIO, start: int, end: int, place: str) -> None:
    """The module tarfile takes a damaged header for the end; at the end there is nothing but zeros."""
    file.seek(start)
    for first in range(start, end, _CHUNK):
        if file.read(min(_CHUNK, end - first)).strip(b"\0"):
            problem = f"damaged at byte {start}, where it has no header of a file and does not end either"
            raise DataError(f"{place}: {problem}; fetch it again")


def _cut_off(path: str, place: str) -> DataError:
    return DataError(f"{path}: the tar file is cut off at {place}; fetch it again")
