"""Batches that other processes make ahead of the training, in the order of its steps."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.forkserver import ensure_running
from threading import Thread
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from upop_ray.data.order import Cursor
from upop_ray.errors import DataError, UpopError

#: batches that each process is ahead
_AHEAD = 2
#: what the processes import before they are needed: most of what a task is made of
_PRELOADED = ["upop_ray.training.feed", "upop_ray.data.streams"]


@dataclass(frozen=True)
class Part(Dataset[Any]):
    """A rank's part of each batch.

    :param batch: :meth:`upop_ray.tasks.spec.Task.batch`, computed in processes that have a copy of it
    """

    batch: Callable[[Cursor, int, int], Any]
    rank: int
    world_size: int

    def __getitem__(self, cursor: Cursor) -> tuple[Cursor, Any]:
        """The part of the batch at a cursor, or the error that a user can cure."""
        try:
            return cursor, self.batch(cursor, self.rank, self.world_size)
        except UpopError as error:
            # torch would raise another one, of many lines
            return cursor, error


class Feed:
    """The batches of consecutive steps, to be taken in their order and closed."""

    def __init__(self, part: Part, cursors: Iterable[Cursor], workers: int) -> None:
        """Start the processes, which begin with the first batches.

        :param cursors: of the steps
        :param workers: how many processes, at least one
        """
        loader = DataLoader(
            part,
            batch_size=None,
            sampler=cursors,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=_AHEAD,
            worker_init_fn=partial(_begin, dict(os.environ)),
            multiprocessing_context=_context(),
            # it draws a seed for the processes, which is not to come from the stream of this one
            generator=torch.Generator(),
        )
        with _without_main():
            self._batches: Iterator[tuple[Cursor, Any]] | None = iter(loader)

    def take(self, cursor: Cursor) -> Any:
        """The batch of the next step.

        :raises UpopError: it could not be made
        :raises DataError: a process was lost
        """
        assert self._batches is not None, "closed"
        try:
            made, batch = next(self._batches)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            problem = " ".join(str(error).split())
            raise DataError(
                f"data.workers: a process that makes batches was lost ({problem}); if memory ran out, lower "
                "data.workers, data.buffer or data.in_memory_mb"
            ) from error
        assert made == cursor, f"the batch of {made} instead of {cursor}"
        if isinstance(batch, UpopError):
            raise batch
        return batch

    def close(self) -> None:
        """End the processes."""
        if self._batches is not None:
            # torch does this when nobody holds the iterator any more, but an error's traceback may
            self._batches._shutdown_workers()  # type: ignore[attr-defined]
        self._batches = None


def prepare_processes() -> None:
    """Begin to start what :class:`Feed` starts its processes from, which takes several seconds, beside this process."""
    with _without_main():
        _context()
        ensure_running()


def _context() -> multiprocessing.context.BaseContext:
    """How processes start: forked from a server that has never seen Ray, CUDA, or a thread.

    A fork of the training process would inherit Ray's connections and signal handlers.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not import the program's main module: a script would run again, an actor load Ray."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(environment: dict[str, str], _: int) -> None:
    """Make this process one of the training process: with its environment, and gone as soon as that is.

    The server that it was forked from may have been started with other variables. Torch ends processes when the one
    they were forked from ends; but the server lives as long as any of them.
    """
    os.environ.clear()
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _unchanged(batch: Any) -> Any:
    return batch
