"""Batches that need no model or data, importable by the processes that make them."""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from upop_ray.data.order import Cursor, Order
from upop_ray.errors import ConfigError, DataError, UpopError
from upop_ray.training.feed import Feed, Part

ERRORS: dict[str, UpopError] = {
    "data": DataError("train-7.parquet: damaged: page 3; fetch or build it again"),
    "config": ConfigError("batch_size", "a batch showed one concept only", "use a larger one"),
}


@dataclass(frozen=True)
class Numbers:
    """Rows of an order with numbers drawn for them, and what can be told of the process; `ERRORS` in epoch 1."""

    order: Order = field(default_factory=lambda: Order(64, 8, 0))
    error: str = "data"

    def batch(self, cursor: Cursor, rank: int, world_size: int) -> dict[str, Any]:
        if cursor.epoch == 1:
            raise ERRORS[self.error]
        if cursor.epoch == 2:
            os._exit(3)
        step = self.order.step(cursor, rank, world_size)
        return {
            "rows": torch.from_numpy(step.own),
            "draws": torch.from_numpy(step.draws.random(len(step.whole)))[step.part],
            "process": os.getpid(),
            "threads": torch.get_num_threads(),
            "ray": "ray" in sys.modules,
            "variable": os.environ.get("UPOP_TEST_VARIABLE"),
            "main": getattr(sys.modules["__main__"], "__file__", None),
        }


def cursors(count: int, epoch: int = 0) -> list[Cursor]:
    return [Cursor(epoch, index) for index in range(count)]


def main() -> None:
    """Start processes, write their numbers to a file, and wait to be killed."""
    feed = Feed(Part(Numbers().batch, 0, 1), cursors(8), 2)
    processes = {feed.take(cursor)["process"] for cursor in cursors(4)}
    target = Path(sys.argv[1])
    target.with_suffix(".new").write_text(" ".join(map(str, processes)))
    target.with_suffix(".new").rename(target)
    time.sleep(600)
