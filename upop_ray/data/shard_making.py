"""One shard of a data set that is prepared: from items to a Parquet file and its record."""

import hashlib
import io
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from upop_ray.data.converters import CONVERTERS
from upop_ray.data.converters.base import Item, Piece, Row
from upop_ray.data.shard_writer import ShardWriter
from upop_ray.data.shards import MANIFEST_NAME, SHARD_FOLDER
from upop_ray.errors import StoreError
from upop_ray.store import Store

#: what Pillow raises for files that are no images, cut off, damaged, or absurdly large
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Job:
    """A shard to make: everything that a worker has to know.

    :param source: the folder that is converted
    :param target: the store that the shard goes to
    """

    dataset: str
    source: str
    target: str
    split: str
    number: int
    items: tuple[Item, ...]
    row_group_bytes: int

    @property
    def name(self) -> str:
        """Name of the shard in the store, without a suffix."""
        return f"{SHARD_FOLDER}/{self.split}-{self.number:05d}"

    @cached_property
    def plan(self) -> str:
        """Hash of all that decides what the shard holds but the content of the images."""
        settings = [self.dataset, CONVERTERS[self.dataset].version, self.split, self.row_group_bytes]
        return hashlib.sha256(json.dumps([settings, self.items]).encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """A shard that is there.

    :param entry: what the manifest says of it
    :param broken: rows that were left out: `item`, `file`, `reason`
    :param reused: it was there before
    """

    plan: str
    entry: dict[str, Any]
    broken: list[dict[str, str]]
    reused: bool = False


class Broken(Exception):
    """A row that cannot be used; it is listed and left out."""

    def __init__(self, item: Item, piece: Piece, reason: str) -> None:
        super().__init__(f"{piece}: {reason}")
        self.facts = {"item": item.id, "file": str(piece), "reason": reason}


def make_shard(job: Job) -> Record:
    """Write a shard and then its record, or find both there already.

    :raises StoreError: the store cannot be written
    """
    store = Store(job.target)
    found = _finished(store, job)
    if found is not None:
        return found
    # what is there belongs to another plan, or was mended; neither its record nor a manifest may vouch for what follows
    store.remove(MANIFEST_NAME)
    store.remove(f"{job.name}.json")
    with store.filled(f"{job.name}.parquet") as local:
        try:
            record = _write(job, local)
        except OSError as error:
            place = store.path(f"{job.name}.parquet")
            problem = error.strerror or " ".join(str(error).split())
            raise StoreError(f"{place}: cannot be written: {problem}; make room, and start it again") from error
    store.write_json(f"{job.name}.json", {"plan": job.plan, "entry": record.entry, "broken": record.broken})
    return record


def _write(job: Job, local: Path) -> Record:
    writer = ShardWriter(local, CONVERTERS[job.dataset].schema, job.row_group_bytes)
    broken = []
    for item in job.items:
        try:
            writer.add(_row(job, item))
        except Broken as problem:
            broken.append(problem.facts)
    writer.close()
    with local.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = {
        "path": f"{job.name}.parquet",
        "split": job.split,
        "sha256": digest,
        "rows": sum(writer.row_groups),
        "bytes": local.stat().st_size,
        "row_groups": writer.row_groups,
    }
    return Record(job.plan, entry, broken)


def _finished(store: Store, job: Job) -> Record | None:
    if not store.exists(f"{job.name}.json") or not store.exists(f"{job.name}.parquet"):
        return None
    record = Record(**store.read_json(f"{job.name}.json"), reused=True)
    if record.plan != job.plan or _mended(job, {entry["item"] for entry in record.broken}):
        return None
    return record


def _mended(job: Job, broken: set[str]) -> bool:
    """Whether a row that was left out can be read by now."""
    return any(_readable(job, item) for item in job.items if item.id in broken)


def _readable(job: Job, item: Item) -> bool:
    try:
        _row(job, item)
    except Broken:
        return False
    return True


def _row(job: Job, item: Item) -> Row:
    row = {column: _read_image(Path(job.source), item, piece) for column, piece in item.files.items()}
    try:
        return CONVERTERS[job.dataset].finish({**row, **item.values})
    except ValueError as error:
        raise Broken(item, list(item.files.values())[-1], str(error)) from error


def _read_image(source: Path, item: Item, piece: Piece) -> bytes:
    """The bytes of an image, which was decoded to its last pixel to see that it can be."""
    try:
        content = _read_piece(source, piece)
        Image.open(io.BytesIO(content)).load()
    except FileNotFoundError as error:
        raise Broken(item, piece, "missing") from error
    except UnidentifiedImageError as error:
        raise Broken(item, piece, "not an image") from error
    except _UNREADABLE as error:
        raise Broken(item, piece, str(error).replace(f"{source}/", "")) from error
    return content


def _read_piece(source: Path, piece: Piece) -> bytes:
    with (source / piece.path).open("rb") as file:
        file.seek(piece.offset)
        content = file.read(-1 if piece.size is None else piece.size)
    if piece.size is not None and len(content) < piece.size:
        raise OSError(f"cut off after {len(content)} of {piece.size} bytes")
    return content


def sampled_bytes(source: Path, items: tuple[Item, ...] | list[Item], samples: int) -> float:
    """Mean size of a row's images, by as many rows at equal distances; a missing file counts nothing."""
    chosen = items[:: max(1, len(items) // samples)]
    return sum(_size(source, piece) for item in chosen for piece in item.files.values()) / max(1, len(chosen))


def _size(source: Path, piece: Piece) -> int:
    if piece.size is not None:
        return piece.size
    try:
        return (source / piece.path).stat().st_size
    except (OSError, ValueError):
        # missing, or a name that no file can have
        return 0
