"""Preparing a data set: from its annotations to shards, a manifest and a data card in a store.

The manifest is written last: without one there is no data set, whatever else lies there. A shard that is finished has a
record beside it, so that preparing again makes what is missing and nothing else.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from upop_ray.data.converters import CONVERTERS
from upop_ray.data.converters.base import Conversion, Converter, Item
from upop_ray.data.converters.source import Source
from upop_ray.data.data_card import data_card
from upop_ray.data.shard_making import Job, Record, make_shard, pieces, sampled_bytes
from upop_ray.data.shards import MANIFEST_NAME, SCHEMA_VERSION, SHARD_FOLDER, content_hash
from upop_ray.errors import DataError
from upop_ray.store import Store

BROKEN_NAME = "broken.jsonl"
CARD_NAME = "README.md"
#: seed of the order of rows
ORDER_SEED = 0
_MEGABYTE = 2**20
#: rows whose size is looked up to choose how many a shard takes
_SAMPLES = 200

# runs a function on jobs, in any order, and yields what it returns as it comes
Mapper = Callable[[Callable[[Job], Record], Sequence[Job]], Iterable[Record]]


@dataclass(frozen=True)
class Settings:
    """How a data set is prepared.

    :param limit: rows of each split; 0 is all of them
    :param broken_share: share of the rows that may be unusable; with more the data set is not made
    """

    shard_mb: float = 256.0
    row_group_mb: float = 16.0
    limit: int = 0
    broken_share: float = 0.001


class Preparation:
    """A data set that is to be prepared; the annotations are read when it is made.

    :param source: the folder with the data set as its owners distribute it
    :param target: a folder or fsspec URI
    :raises DataError: no such data set; something in the source is missing or wrong; the target holds another one
    """

    def __init__(self, dataset: str, source: str, target: str, settings: Settings) -> None:
        if dataset not in CONVERTERS:
            raise DataError(f"{dataset}: no converter of that name; there is {', '.join(CONVERTERS)}")
        self.converter = CONVERTERS[dataset]
        self.settings = settings
        self._source = Source(Path(source).expanduser().resolve(), self.converter.expects)
        if not self._source.root.is_dir():
            raise self._source.wrong("no such folder")
        self._store = Store(target)
        self._previous = self._previous_manifest()
        self._conversion = self.converter.read(self._source)
        _check_items(self._source.root, self._conversion)
        self.jobs = [job for split in self._conversion.splits for job in self._jobs(split)]

    def run(self, mapper: Mapper, report: Callable[[Record], None] = lambda record: None) -> dict[str, Any]:
        """Make what is missing, and return the manifest.

        :param report: is told of every shard as it is finished
        :raises DataError: more rows than allowed are unusable
        :raises StoreError: the store cannot be written
        """
        plan = hashlib.sha256("\n".join(job.plan for job in self.jobs).encode()).hexdigest()
        if self._previous.get("plan") != plan:
            # from here on its shards may be replaced
            self._store.remove(MANIFEST_NAME)
        records: list[Record] = []
        broken: list[dict[str, str]] = []
        for record in mapper(make_shard, self.jobs):
            records.append(record)
            report(record)
            broken += record.broken
            self._check_broken(broken)
        places = {f"{job.name}.parquet": place for place, job in enumerate(self.jobs)}
        entries = sorted((record.entry for record in records), key=lambda entry: places[entry["path"]])
        manifest = {**self._manifest(entries), "plan": plan}
        self._publish(manifest, sorted(broken, key=lambda entry: entry["item"]))
        return manifest

    def _jobs(self, split: str) -> list[Job]:
        items = self._conversion.splits[split]
        # neighbours in the annotations are alike, of one class for instance
        order = np.random.default_rng([ORDER_SEED, len(items)]).permutation(len(items))
        chosen = [items[place] for place in order[: self.settings.limit or None]]
        root = self._source.root
        size = sampled_bytes(root, chosen, _SAMPLES) * len(chosen)
        count = max(1, min(len(chosen), round(size / (self.settings.shard_mb * _MEGABYTE))))
        bounds = [len(chosen) * number // count for number in range(count + 1)]
        group = int(self.settings.row_group_mb * _MEGABYTE)
        return [
            Job(self.converter.name, str(root), self._store.uri, split, number, tuple(chosen[start:end]), group)
            for number, (start, end) in enumerate(pairwise(bounds))
        ]

    def _check_broken(self, broken: Sequence[Mapping[str, str]]) -> None:
        total = sum(len(job.items) for job in self.jobs)
        if len(broken) <= self.settings.broken_share * total:
            return
        shown = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in broken[:3])
        raise DataError(
            f"{self._source.root}: {len(broken)} of {total} rows cannot be used, more than --broken-share "
            f"{self.settings.broken_share:g} allows: {shown}; mend them, or allow more"
        )

    def _previous_manifest(self) -> dict[str, Any]:
        if not self._store.exists(MANIFEST_NAME):
            return {}
        found: dict[str, Any] = self._store.read_json(MANIFEST_NAME)
        if found.get("name") != self.converter.name:
            place = self._store.path(MANIFEST_NAME)
            raise DataError(f"{place}: belongs to the data set {found.get('name')!r}; prepare into another folder")
        return found

    def _manifest(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        splits = {split: _counts(split, entries, self._conversion) for split in self._conversion.splits}
        converter = self.converter
        return {
            "schema_version": SCHEMA_VERSION,
            "name": converter.name,
            "title": converter.title,
            "source": {"home": converter.home, "licence": converter.licence},
            "converter_version": converter.version,
            "rows": {split: counts["rows"] for split, counts in splits.items()},
            "splits": splits,
            "limit": self.settings.limit,
            "order": f"rows of every split in random order, seed {ORDER_SEED}",
            "skipped": dict(self._conversion.skipped),
            "notes": list(self._conversion.notes),
            "columns": {field.name: str(field.type) for field in converter.schema},
            "versions": _versions(),
            **self._conversion.facts,
            "files": entries,
            "content_hash": content_hash(entries),
        }

    def _publish(self, manifest: Mapping[str, Any], broken: Sequence[Mapping[str, str]]) -> None:
        store = self._store
        for split in manifest["splits"]:
            if not manifest["rows"][split]:
                raise DataError(f"{self._source.root}: no row of the split {split} can be used")
        store.write(BROKEN_NAME, _json_lines(broken))
        store.write(CARD_NAME, data_card(manifest, broken).encode())
        store.write_json(MANIFEST_NAME, manifest)
        expected = {f"{job.name}.{suffix}" for job in self.jobs for suffix in ("json", "parquet")}
        # of an earlier plan
        for name in store.list(SHARD_FOLDER):
            if f"{SHARD_FOLDER}/{name}" not in expected:
                store.remove(f"{SHARD_FOLDER}/{name}")


def _check_items(root: Path, conversion: Conversion) -> None:
    seen: dict[str, Item] = {}
    for split, items in conversion.splits.items():
        if not items:
            raise DataError(f"{root}: the annotations have no row of the split {split}; fetch them again")
        for item in items:
            first = seen.setdefault(item.id, item)
            if first is not item:
                files = " and ".join(str(next(iter(each.files.values()))) for each in (first, item))
                raise DataError(f"{root}: two rows have the id {item.id!r}: {files}; give each its own")
        for piece in pieces(list(items)):
            if piece.path.startswith("/") or ".." in piece.path.split("/"):
                raise DataError(f"{root}: {piece.path!r} leads out of the folder; name images inside it")


def _counts(split: str, entries: Sequence[Mapping[str, Any]], conversion: Conversion) -> dict[str, Any]:
    own = [entry for entry in entries if entry["split"] == split]
    counts = {key: sum(entry[key] for entry in own) for key in ("rows", "bytes")}
    return {**counts, "shards": len(own), "origin": conversion.origin[split]}


def _json_lines(entries: Sequence[Mapping[str, str]]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("upop_ray", "pyarrow", "pillow")}
    return {"python": platform.python_version(), **packages}


def describe(converter: Converter) -> str:
    """A data set in one line, with the layout that its folder has to have."""
    return f"{converter.name}: {converter.title}; from {converter.expects}"
