"""Data sets in the Parquet layouts of the `datasets` library and its hub, read as they are.

These are `data/SPLIT-00000-of-00002-....parquet`, and `SPLIT/0000.parquet`, into which the hub converts what others
have uploaded (a folder for each configuration, which is to be named).

There is no manifest. What one would say is taken from the names and the footers of the files, and so is the content
hash: it follows what the footers say (sizes and places of all pages), since reading every file would take hours.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from upop_ray.data.columns import RenamedColumns
from upop_ray.data.fetching import fetch, file_system
from upop_ray.data.shards import SCHEMA_VERSION, ShardedDataset, content_hash
from upop_ray.errors import DataError
from upop_ray.store.failures import no_bucket

_FILE = re.compile(r"(?P<split>\w+)-(?:(?P<number>\d+)-of-(?P<count>\d+)|.+?)(?:-[0-9a-f]+)?\.parquet")
_FOLDERS = ("data/", "")
_CONVERTED = re.compile(r"(?P<number>\d{4,})\.parquet")
_SPLITS = {"validation": "val", "valid": "val", "dev": "val"}
_ORDER = ("train", "val", "test")
#: bytes at the end of a file that are read first; longer footers take a second request
_TAIL = 2**16
_END = 8
_CONNECTIONS = 16


class HubDataset(ShardedDataset):
    """Files that the `datasets` library or its like has written; the manifest is made of what they say."""

    def _read(self, entry: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
        # what stands as sha256 in the entry is no hash of the whole file
        return self._read_columns(entry, columns)


class _File(NamedTuple):
    path: str
    split: str
    bytes: int


class _Footer(NamedTuple):
    digest: str
    metadata: pq.FileMetaData


def open_hub_layout(root: str, options: Mapping[str, Any], columns: Mapping[str, str]) -> HubDataset | None:
    """Open such a data set; None where there is no file of such a name.

    Without `columns`, the only column that holds images is `image` and the only one with named classes is `class`.

    :param columns: names of ours -> names in the files
    :raises DataError: a part of a split is missing; a file is not Parquet; a column of `columns` is not there
    """
    files, place = file_system(root, options)
    found = fetch(files, root, lambda: _files_of(files, place))
    if not found:
        return None

    def footer(file: _File) -> _Footer:
        path = f"{place}/{file.path}"
        return fetch(files, f"{root}/{file.path}", lambda: _footer(files, path, file.bytes, root))

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        footers = list(pool.map(footer, found))
    schema = footers[0].metadata.schema.to_arrow_schema()
    named = _columns(root, schema, columns)
    return HubDataset(root, _manifest(root, found, footers, named), options, columns=named)


def _files_of(files: fsspec.AbstractFileSystem, root: str) -> list[_File]:
    """The files in the order of their splits; none where they have other names."""
    found = next(filter(None, (_listed(files, root, folder) for folder in _FOLDERS)), None) or _converted(files, root)
    order = {split: place for place, split in enumerate(_ORDER)}
    return sorted(found, key=lambda file: (order.get(file.split, len(order)), file.split, file.path))


def _listing(files: fsspec.AbstractFileSystem, folder: str, kind: str) -> list[tuple[str, int]]:
    """Names and sizes of the files or folders in a folder."""
    try:
        listing = files.ls(folder.rstrip("/"), detail=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        if no_bucket(error):
            raise
        return []
    names = ((entry["name"].rstrip("/").rsplit("/", 1)[-1], entry) for entry in listing)
    return [(name, int(entry["size"] or 0)) for name, entry in names if entry["type"] == kind]


def _converted(files: fsspec.AbstractFileSystem, root: str) -> list[_File]:
    """`SPLIT/0000.parquet` and the like."""
    found = []
    for split in sorted({name for name, _ in _listing(files, root, "directory")} & {*_ORDER, *_SPLITS}):
        parts = [part for part in _listing(files, f"{root}/{split}", "file") if _CONVERTED.fullmatch(part[0])]
        numbers = {int(name.partition(".")[0]) for name, _ in parts}
        missing = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
        if missing:
            raise DataError(f"{root}/{split}: part {missing[0]} of the split {split} is missing; fetch it")
        found += [_File(f"{split}/{name}", _SPLITS.get(split, split), size) for name, size in parts]
    return found


def _listed(files: fsspec.AbstractFileSystem, root: str, folder: str) -> list[_File]:
    """`SPLIT-00000-of-00002.parquet` and the like."""
    found, counts = [], defaultdict(list)
    for name, size in _listing(files, f"{root}/{folder}", "file"):
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        found.append(_File(folder + name, _SPLITS.get(match["split"], match["split"]), size))
        if match["count"]:
            counts[match["split"], int(match["count"])].append(int(match["number"]))
    for (split, count), numbers in counts.items():
        missing = sorted(set(range(count)) - set(numbers))
        if missing:
            raise DataError(f"{root}/{folder}: part {missing[0]} of {count} of the split {split} is missing; fetch it")
    return found


def _footer(files: fsspec.AbstractFileSystem, path: str, size: int, root: str) -> _Footer:
    tail = files.cat_file(path, start=max(0, size - _TAIL), end=size)
    length = int.from_bytes(tail[-_END:-4], "little") + _END
    if len(tail) < _END or tail[-4:] != b"PAR1" or length > size:
        raise DataError(f"{root}: {path} is not a whole Parquet file; fetch it again")
    if length > len(tail):
        tail = files.cat_file(path, start=size - length, end=size)
    digest = hashlib.sha256(f"{size}\n".encode() + tail[-length:]).hexdigest()
    try:
        return _Footer(digest, pq.read_metadata(pa.BufferReader(tail)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{root}: {path} is not a whole Parquet file: {error}; fetch it again") from error


def _manifest(root: str, files: Sequence[_File], footers: Sequence[_Footer], columns: RenamedColumns) -> dict[str, Any]:
    entries, rows = [], dict.fromkeys((file.split for file in files), 0)
    # the same files with other columns are another data set
    renamed = json.dumps(sorted(columns.names.items()))
    for file, footer in zip(files, footers, strict=True):
        digest = hashlib.sha256(f"{footer.digest} {renamed}".encode()).hexdigest()
        groups = [footer.metadata.row_group(number).num_rows for number in range(footer.metadata.num_row_groups)]
        entry = {"path": file.path, "split": file.split, "sha256": digest, "rows": sum(groups)}
        entries.append({**entry, "bytes": file.bytes, "row_groups": groups})
        rows[file.split] += sum(groups)
    names = columns.classes.get(columns.names.get("class", "class"))
    facts = {"classes": list(names)} if names else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": root,
        "rows": rows,
        "files": entries,
        **facts,
        "content_hash": content_hash(entries, facts),
    }


def _columns(root: str, schema: pa.Schema, wanted: Mapping[str, str]) -> RenamedColumns:
    for ours, theirs in wanted.items():
        if theirs not in schema.names:
            raise DataError(f"data.columns.{ours}: {root} has no column {theirs!r}; it has {', '.join(schema.names)}")
    features = _features(schema)
    images = [name for name in schema.names if _is_image(schema.field(name).type)]
    classes = {name: facts["names"] for name, facts in features.items() if facts.get("_type") == "ClassLabel"}
    names, candidates = dict(wanted), {}
    for ours, found in (("image", images), ("class", list(classes))):
        if ours in names or ours in schema.names:
            continue
        if len(found) == 1:
            names[ours] = found[0]
        elif found:
            candidates[ours] = found
    return RenamedColumns(names, candidates, frozenset(images), classes)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the library says of the columns, as far as it does."""
    content = (schema.metadata or {}).get(b"huggingface")
    if content is None:
        return {}
    try:
        features = json.loads(content)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: facts for name, facts in features.items() if isinstance(facts, dict)}
