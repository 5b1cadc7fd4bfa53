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

from upop_ray.data.annotations import incomplete, read_annotations
from upop_ray.data.converters import CONVERTERS
from upop_ray.data.converters.base import Conversion, Converter
from upop_ray.data.converters.source import Source
from upop_ray.data.data_card import data_card
from upop_ray.data.shard_making import Job, Record, make_shard, sampled_bytes
from upop_ray.data.shards import MANIFEST_NAME, SCHEMA_VERSION, content_hash
from upop_ray.data.target import BROKEN_NAME, CARD_NAME, Target
from upop_ray.errors import DataError
from upop_ray.store import Store

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
    :param partial: whether the source may hold another number of rows than the published data set; with a limit it may
    """

    shard_mb: float = 256.0
    row_group_mb: float = 16.0
    limit: int = 0
    broken_share: float = 0.001
    partial: bool = False


class Preparation:
    """A data set that is to be prepared; the annotations are read when it is made.

    :param source: the folder with the data set as its owners distribute it
    :param target: a folder or fsspec URI
    :ivar differing: in which parts the source differs from the published data set
    :raises DataError: no such data set; something in the source is missing or wrong; the target holds something else
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
        self._target = Target(self._store, self.converter.name)
        self._conversion = read_annotations(self.converter, self._source)
        self.differing = {part: str(count) for part, count in incomplete(self._conversion).items()}
        self._check_complete()
        self.jobs = [job for split in self._conversion.splits for job in self._jobs(split)]

    def run(self, mapper: Mapper, report: Callable[[Record], None] = lambda record: None) -> dict[str, Any]:
        """Make what is missing, and return the manifest.

        :param report: is told of every shard as it is finished
        :raises DataError: more rows than allowed are unusable
        :raises StoreError: the store cannot be written
        """
        plan = hashlib.sha256("\n".join(job.plan for job in self.jobs).encode()).hexdigest()
        self._target.begin(str(self._source.root))
        if self._target.manifest.get("plan") != plan:
            # it lists other shards; where the plan is the same, a shard that is replaced removes it
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

    def _check_complete(self) -> None:
        if self.differing and not self.settings.partial and not self.settings.limit:
            parts = "; ".join(f"{part}: {count}" for part, count in self.differing.items())
            raise DataError(f"{self._source.root}: {parts}; fetch the rest, or accept what is there with --partial")

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
            "differing": self.differing,
            "order": f"rows of every split in random order, seed {ORDER_SEED}",
            "skipped": dict(self._conversion.skipped),
            "notes": list(self._conversion.notes),
            "columns": {field.name: str(field.type) for field in converter.schema},
            "versions": _versions(),
            **self._conversion.facts,
            "files": entries,
            "content_hash": content_hash(entries, self._conversion.facts),
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
        self._target.tidy(expected)


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
