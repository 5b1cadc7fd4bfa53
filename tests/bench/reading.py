"""``python -m tests.bench.reading --images 20000``: how fast images are read, from a folder and from a real S3 server.

Beside plain reading of the same bytes, and beside the package `datasets` on the same shards. Images are 640x480 JPEGs
of filtered noise, each file another one. Everything runs on this machine's cores, the server too; before each
measurement the shards are dropped from memory as far as the system allows.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import s3fs
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTForImageClassification

from tests.s3 import serving
from upop_ray.data.batches import training_order
from upop_ray.data.captions import CaptionBatches, load_captions
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Cursor
from upop_ray.data.reading import Reading
from upop_ray.data.shard_writer import ShardWriter
from upop_ray.data.shards import SCHEMA_VERSION, open_dataset
from upop_ray.data.views import BlipPhotographs, DeitPhotographs
from upop_ray.training.feed import Feed, Part, prepare_processes

SIZE, QUALITY, DISTINCT = (640, 480), 85, 300
SHARD, ROW_GROUP = 256 * 10**6, 16 * 2**20
BATCH, WORKERS, STEPS = 32, 2, 8
BLIP = BlipPhotographs(Preprocessing(384, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)))
DEIT = DeitPhotographs(Preprocessing(224, (0.5,) * 3, (0.5,) * 3), None, 0.0)
SCHEMA = pa.schema([("image", pa.binary()), ("captions", pa.list_(pa.string()))])


@dataclass(frozen=True)
class Measured:
    """What one way of reading took."""

    name: str
    images: int
    bytes: int
    seconds: float

    @property
    def speed(self) -> float:
        return self.images / self.seconds

    def line(self, reference: "Measured") -> str:
        megabytes = self.bytes / 1e6 / self.seconds
        ratio = self.speed / reference.speed
        return f"{self.name:52} {self.images:6} images {self.speed:8.0f} images/s {megabytes:7.0f} MB/s {ratio:8.3f}"


def photographs() -> list[bytes]:
    """Distinct JPEGs of about the size of photographs: noise at several scales."""
    draws, found = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        noise = sum(_noise(draws, radius) for radius in (1, 4, 16))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(noise / 3, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
        found.append(buffer.getvalue())
    return found


def _noise(draws: np.random.Generator, radius: int) -> np.ndarray:
    side = tuple(-(-length // radius) for length in SIZE)
    image = Image.fromarray(draws.integers(256, size=(side[1], side[0], 3), dtype=np.uint8))
    return np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))).astype(float)


def write_shards(folder: Path, count: int) -> int:
    """A data set of as many images; returns their bytes."""
    originals, files, total = photographs(), [], 0
    (folder / "shards").mkdir(parents=True)
    # small ones have as many shards as processes too
    each = min(-(-count // 4), round(SHARD / np.mean([len(content) for content in originals])))
    for number, first in enumerate(range(0, count, each)):
        path = folder / "shards" / f"train-{number:05d}.parquet"
        writer = ShardWriter(path, SCHEMA, ROW_GROUP)
        for row in range(first, min(first + each, count)):
            # a comment after the start marker makes each file another one
            image = originals[row % DISTINCT]
            content = image[:2] + b"\xff\xfe\x00\x0a" + row.to_bytes(8, "big") + image[2:]
            total += len(content)
            writer.add({"image": content, "captions": [f"picture {row}"]})
        writer.close()
        facts = {"bytes": path.stat().st_size, "rows": sum(writer.row_groups), "row_groups": writer.row_groups}
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"path": f"shards/{path.name}", "split": "train", "sha256": digest} | facts)
    (folder / "manifest.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "files": files}))
    return total


def forget(folder: Path) -> None:
    """Drop files from the system's memory."""
    for path in folder.rglob("*.parquet"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def batches_of(root: str, cache: Path) -> CaptionBatches:
    dataset = open_dataset(root, reading=Reading(cache=cache, memory_bytes=0))
    split = load_captions(dataset, "train")
    return CaptionBatches(split, training_order(dataset, split, BATCH, 0), BLIP)


def plain(shards: list[str], read: Callable[[str], bytes]) -> int:
    """Images and bytes of reading all shards from the first to the last byte."""
    return sum(len(read(shard)) for shard in shards)


def encoded(batches: CaptionBatches) -> tuple[int, int]:
    """Images and bytes of an epoch in its shuffled order, in this process, not decoded."""
    images = read = 0
    for index in range(len(batches)):
        contents = batches.split.pictures.contents(batches.order.step(Cursor(0, index)).own.tolist())
        images, read = images + len(contents), read + sum(map(len, contents))
    return images, read


def decoded(batches: CaptionBatches, count: int) -> Iterator[int]:
    """Images of each batch that two processes decode and change as BLIP is trained."""
    cursors = [Cursor(0, index) for index in range(min(count // BATCH, len(batches)))]
    with closing(Feed(Part(batches.batch, 0, 1), cursors, WORKERS)) as feed:
        for cursor in cursors:
            yield len(feed.take(cursor).pixel_values)


def streamed(files: list[str], options: dict[str, Any]) -> Any:
    """The same shards by the package datasets, shuffled with a buffer as large as ours."""
    found = datasets.load_dataset(
        "parquet", data_files={"train": files}, split="train", streaming=True, storage_options=options or None
    )
    return found.shuffle(seed=0, buffer_size=2048)


def encoded_by_datasets(found: Any) -> tuple[int, int]:
    images = read = 0
    for row in found:
        images, read = images + 1, read + len(row["image"])
    return images, read


def decoded_by_datasets(found: Any, count: int) -> Iterator[int]:
    """The same work by the package datasets, in as many processes, which start in the same way."""
    loader = DataLoader(
        found.map(_changed, remove_columns=["image", "captions"]).with_format("torch"),
        batch_size=BATCH,
        num_workers=WORKERS,
        multiprocessing_context="forkserver",
    )
    yield from (len(batch["pixels"]) for batch in itertools.islice(loader, count // BATCH))


def _changed(row: dict[str, Any]) -> dict[str, Any]:
    image = Image.open(io.BytesIO(row["image"])).convert("RGB")
    return {"pixels": BLIP._changed(image, np.random.default_rng()).numpy()}


def timed(name: str, action: Callable[[], tuple[int, int]]) -> Measured:
    started = time.monotonic()
    images, read = action()
    return Measured(name, images, read, time.monotonic() - started)


def steady(name: str, batches: Iterator[int], image_bytes: float) -> Measured:
    """The speed from the first batches on, one of each process: starting is not reading."""
    for _ in range(WORKERS):
        next(batches)
    started = time.monotonic()
    images = sum(batches)
    return Measured(name, images, round(images * image_bytes), time.monotonic() - started)


def measure(place: str, root: str, work: "Work") -> Iterator[Measured]:
    """All ways of reading from one place."""
    local = place == "folder"
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    shards = [f"{root}/shards/{path.name}" for path in sorted((work.folder / "shards").iterdir())]
    read = (lambda shard: Path(shard).read_bytes()) if local else files.cat_file
    forget(work.folder)
    yield timed(f"{place}: plain, whole shards one by one", lambda: (work.images, plain(shards, read)))
    for state in ("cold",) if local else ("empty cache", "full cache"):
        forget(work.folder)
        batches = batches_of(root, work.cache)
        yield timed(f"{place}: ours, encoded, {state}", partial(encoded, batches))
    forget(work.folder)
    options = {} if local else {"client_kwargs": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}}
    found = streamed(shards, options)
    yield timed(f"{place}: datasets, encoded", partial(encoded_by_datasets, found))
    how = f"decoded for BLIP, {WORKERS} processes"
    each = work.bytes / work.images
    forget(work.folder)
    yield steady(f"{place}: ours, {how}", decoded(batches_of(root, work.cache), work.decoded), each)
    forget(work.folder)
    found = decoded_by_datasets(streamed(shards, options), work.decoded)
    yield steady(f"{place}: datasets, {how}", found, each)


@dataclass(frozen=True)
class Work:
    """What is read."""

    folder: Path
    cache: Path
    images: int
    bytes: int
    decoded: int


def waiting(root: str, work: Work, workers: int) -> tuple[float, float]:
    """Share of the time that training DeiT-Ti waits for its batches, and seconds of a step, after the first steps."""
    torch.manual_seed(0)
    tiny = ViTConfig(hidden_size=192, intermediate_size=768, num_attention_heads=3, num_labels=1000)
    model = ViTForImageClassification(tiny)
    optimizer = torch.optim.AdamW(model.parameters())
    plain_batches = batches_of(root, work.cache)
    batches = CaptionBatches(plain_batches.split, plain_batches.order, DEIT)
    part = Part(batches.batch, 0, 1)
    cursors = [Cursor(0, index) for index in range(STEPS)]
    feed = Feed(part, cursors, workers) if workers else None
    waited, started = 0.0, 0.0
    for cursor in cursors:
        if cursor.index == 2:
            waited, started = 0.0, time.monotonic()
        before = time.monotonic()
        batch = feed.take(cursor) if feed else part[cursor][1]
        waited += time.monotonic() - before
        loss = torch.nn.functional.cross_entropy(model(batch.pixel_values).logits, torch.zeros(BATCH).long())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.monotonic() - started
    if feed:
        feed.close()
    return waited / seconds, seconds / (STEPS - 2)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--decoded", type=int, default=2_000, help="of them that are decoded (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="upop-reading-") as name, serving() as server:
        # which have the environment of the server then
        prepare_processes()
        folder = Path(name) / "data"
        total = write_shards(folder, arguments.images)
        work = Work(folder, Path(name) / "cache", arguments.images, total, min(arguments.decoded, arguments.images))
        print(f"{work.images} images, {total / 1e6:.0f} MB, {total / work.images / 1e3:.0f} kB each")
        s3fs.S3FileSystem(skip_instance_cache=True).put(str(folder), f"{server.bucket}/data", recursive=True)
        for place, root in (("folder", str(folder)), ("S3", server.uri("data"))):
            found: list[Measured] = []
            for measured in measure(place, root, work):
                found.append(measured)
                print(measured.line(found[0]), flush=True)
        for workers in (0, WORKERS):
            share, seconds = waiting(server.uri("data"), work, workers)
            print(f"DeiT-Ti, batch {BATCH}, S3, {workers} processes: waits {share:.1%} of a step of {seconds:.2f} s")


if __name__ == "__main__":
    main()
