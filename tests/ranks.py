"""Processes of one process group that run functions of the tests together, and stay for the next function."""

import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

_TIMEOUT = 300.0
_POLL = 0.02


class Ranks:
    """A few spawned processes joined by gloo; started at the first call, ended by :meth:`stop` or by a failure."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of ``function(*arguments)`` on every rank; the function is importable by name.

        :raises RuntimeError: a rank failed, with its traceback, or one did not answer in time
        """
        if not self._workers:
            self._workers = _started(self.count)
        # by value: tensors would otherwise travel as handles of shared memory
        content = pickle.dumps((function, arguments))
        for _, connection in self._workers:
            connection.send_bytes(content)
        try:
            return self._answers()
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the processes; the next call starts new ones."""
        for process, connection in self._workers:
            process.kill()
            process.join()
            connection.close()
        self._workers = []

    def _answers(self) -> list[Any]:
        answers: dict[int, Any] = {}
        end = time.monotonic() + _TIMEOUT
        # whoever fails first is heard first, while the others still wait for it
        while len(answers) < self.count:
            for rank, (process, connection) in enumerate(self._workers):
                if rank not in answers and connection.poll():
                    answers[rank] = _received(rank, connection)
                elif rank not in answers and not process.is_alive():
                    raise RuntimeError(f"rank {rank} died with exit code {process.exitcode}")
            if time.monotonic() > end:
                raise RuntimeError(
                    f"no answer within {_TIMEOUT:.0f} s from ranks {set(range(self.count)) - set(answers)}"
                )
            time.sleep(_POLL)
        return [answers[rank] for rank in range(self.count)]


def _received(rank: int, connection: Connection) -> Any:
    try:
        answer, failure = pickle.loads(connection.recv_bytes())
    except EOFError:
        raise RuntimeError(f"rank {rank} closed its connection") from None
    if failure is not None:
        raise RuntimeError(f"rank {rank} failed:\n{failure}")
    return answer


def _started(count: int) -> list[tuple[BaseProcess, Connection]]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers: list[tuple[BaseProcess, Connection]] = []
    for rank in range(count):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(rank, count, port, there), daemon=True)
        process.start()
        workers.append((process, here))
    return workers


def _serve(rank: int, count: int, port: int, connection: Connection) -> None:
    from upop_ray.config import Replica
    from upop_ray.distributed.zero import start_process_group

    torch.set_num_threads(1)
    # DeepSpeed imports optimizers that load torch's compiler, for seconds and for nothing
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    start_process_group(Replica(workers=count), rank, "127.0.0.1", port)
    while True:
        function, arguments = pickle.loads(connection.recv_bytes())
        try:
            answer = (function(*arguments), None)
        except Exception:  # noqa: BLE001 - whatever it is, the test process has to hear of it
            answer = (None, traceback.format_exc())
        connection.send_bytes(pickle.dumps(answer))
