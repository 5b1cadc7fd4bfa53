"""Convert a published data set, or one's own: ``python -m upop_ray.data.prepare DATASET --source FOLDER --to URI``."""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from upop_ray.data.converters import CONVERTERS
from upop_ray.data.preparation import Preparation, Settings
from upop_ray.data.shard_making import Record
from upop_ray.data.target import BROKEN_NAME, CARD_NAME
from upop_ray.errors import ConfigError
from upop_ray.store import Store
from upop_ray.terminal import console, guarded

_HELP = """\
Convert a data set from the layout in which its owners distribute it into Parquet shards, a manifest and a data card,
which experiments read by data.path. Every image is decoded once; those that cannot be are listed and left out.
Shards are made side by side on Ray; on a cluster every node must see --source and --to under the same names.
The same command again makes what is missing."""

_EPILOG = """\
examples:
  python -m upop_ray.data.prepare coco --source /data/coco --to s3://bucket/coco
  python -m upop_ray.data.prepare imagenet --source /data/imagenet --to /data/prepared/imagenet --limit 1000
  python -m upop_ray.data.prepare jsonl --source my_photos --to prepared/my_photos --broken-share 0.05

exit code: 0 the data set is complete, 2 it cannot be made as asked, 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    settings = Settings(options.shard_mb, options.row_group_mb, options.limit, options.broken_share, options.partial)
    _check(options)
    preparation = Preparation(options.dataset, options.source, options.to, settings)
    for part, count in preparation.differing.items():
        console.print(f"attention: {part} has {count} of the published data set")
    # Ray takes seconds to import, which --help and a wrong folder need not wait for
    from upop_ray.distributed.parallel import map_jobs

    with Shown(len(preparation.jobs)) as shown:
        manifest = preparation.run(partial(map_jobs, workers=options.workers), shown.add)
    _say(Store(options.to), manifest)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.data.prepare",
        description=f"{_HELP}\n\ndata sets, and what their folders hold:\n{_datasets()}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("dataset", choices=CONVERTERS, metavar="DATASET", help="one of the above")
    parser.add_argument("--source", required=True, metavar="FOLDER", help="the data set as it was downloaded")
    parser.add_argument("--to", required=True, metavar="URI", help="a folder, or s3://bucket/prefix and its like")
    parser.add_argument("--limit", type=int, default=default.limit, metavar="N", help="rows of each split; 0 is all")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="shards at a time; 0 is one for each CPU")
    parser.add_argument("--shard-mb", type=float, default=default.shard_mb, metavar="MB", help="size of a shard")
    parser.add_argument("--row-group-mb", type=float, default=default.row_group_mb, metavar="MB", help="of a row group")
    share = "share of the rows that may be unusable; beyond it is an error"
    parser.add_argument("--broken-share", type=float, default=default.broken_share, metavar="SHARE", help=share)
    partial = "take another number of rows than the published data set has; with --limit that needs no leave"
    parser.add_argument("--partial", action="store_true", help=partial)
    return parser


def _datasets() -> str:
    return "\n".join(f"  {each.name:12}{each.title}\n{'':14}{each.expects}" for each in CONVERTERS.values())


def _check(options: argparse.Namespace) -> None:
    for name, least in (("limit", 0), ("workers", 0), ("broken_share", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')}", f"got {getattr(options, name)}", f"use {least} or more")
    for name in ("shard_mb", "row_group_mb"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')}", f"got {getattr(options, name)}", "use more than 0")


def _say(store: Store, manifest: dict[str, Any]) -> None:
    for split, counts in manifest["splits"].items():
        console.print(f"{split:5} {counts['rows']:,} rows, {counts['bytes'] / 1e6:,.0f} MB: {counts['origin']}")
    console.print(f"data set:  {store.uri} (content hash {manifest['content_hash'][:16]})")
    for part, count in manifest["differing"].items():
        console.print(f"attention: {part} has {count} of the published data set")
    console.print(f"data card: {store.path(CARD_NAME)}; left out: {store.path(BROKEN_NAME)}")


class Shown:
    """Progress over shards with images and megabytes a second; a line a shard without a terminal."""

    def __init__(self, shards: int) -> None:
        self._shards, self._done = shards, 0
        self._rows = self._bytes = self._broken = 0
        self._start = time.monotonic()
        self._bar = Progress(
            TextColumn("shards"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("shards", total=shards, facts="")

    def __enter__(self) -> "Shown":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def add(self, record: Record) -> None:
        """Count a shard that is finished."""
        self._done += 1
        self._broken += len(record.broken)
        if not record.reused:
            self._rows += record.entry["rows"]
            self._bytes += record.entry["bytes"]
        self._bar.update(self._task, completed=self._done, facts=self._facts())
        if not console.is_terminal:
            what = "there already" if record.reused else self._facts()
            console.print(f"{record.entry['path']} [{self._done}/{self._shards}] {what}")

    def _facts(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-3)
        broken = f", {self._broken} rows left out" if self._broken else ""
        return f"{self._rows / seconds:,.0f} rows/s, {self._bytes / seconds / 1e6:,.1f} MB/s{broken}"


if __name__ == "__main__":
    guarded(main)
