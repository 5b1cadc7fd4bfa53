"""One process of a replica: a Ray actor that joins the process group once and runs points step by step."""

import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import ray
import torch

from upop_ray import config
from upop_ray.config import Replica as ReplicaSettings
from upop_ray.distributed.zero import start_process_group, zero_engine
from upop_ray.store import PointPaths, Store
from upop_ray.tracking import quieten
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.point import Point
from upop_ray.training.prepared import prepare
from upop_ray.training.progress import GivenBack, Host, Progress

#: methods that answer while a step is being computed, in a thread of their own
_ASIDE = "aside"


class Worker:
    """Steps are computed one call at a time; :meth:`beat` and :meth:`give_back` are heard meanwhile.

    SIGTERM is how a machine says that it goes away: the point is saved at the next step and given back. With nothing
    to save, or told a second time, the process ends as Ray has it.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        quieten()
        self._settings = settings
        self._steps: Iterator[Progress] = iter(())
        self._idle = True
        self._leaving = threading.Event()
        self._end = signal.signal(signal.SIGTERM, self._told_to_leave)
        torch.set_num_threads(max(1, round(settings.cpus_per_worker)))

    def address(self) -> tuple[str, int]:
        """Host and a free port for the process group, asked of rank 0."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def join(self, rank: int, address: str, port: int) -> None:
        """Join the process group."""
        start_process_group(self._settings, rank, address, port)

    def start(self, values: dict[str, Any], attempt: int) -> None:
        """Make a point ready; its first step is taken by the first :meth:`advance`."""
        experiment = config.parse(values)
        store = Store(experiment.store, experiment.store_timeout)
        prepared = prepare(experiment)
        on_gpu = experiment.replica.gpus_per_worker > 0
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        factory = zero_engine(experiment.replica, experiment.batch_size)
        claim = Attempt(store, PointPaths(prepared.hash), attempt)
        self._steps = Point(prepared, Host(store, factory, claim, device, self._leaving.is_set)).run()
        self._idle = False

    def advance(self) -> Progress:
        """Go on to the next report; every rank reports at the same steps.

        :raises GivenBack: the point was saved, because this process or one of its peers was told to leave
        """
        try:
            progress = next(self._steps)
        except BaseException:
            self._idle = True
            raise
        self._idle = progress.manifest is not None
        return progress

    @ray.method(concurrency_group=_ASIDE)
    def beat(self) -> None:
        """Show that this process runs."""

    @ray.method(concurrency_group=_ASIDE)
    def give_back(self) -> None:
        """Save the point at the next step and give it back."""
        self._leaving.set()

    def wind_up(self) -> None:
        """After :meth:`give_back`: go on until the point has been saved, whoever asked for its reports before."""
        try:
            for _ in self._steps:
                pass
        except GivenBack:
            pass

    def leave(self) -> None:
        """Leave the process group, without which the process would abort at its exit."""
        self._steps = iter(())
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _told_to_leave(self, number: int, frame: FrameType | None) -> None:
        if (self._idle or self._leaving.is_set()) and callable(self._end):
            self._end(number, frame)
        self._leaving.set()


def worker_actor() -> Any:
    """The Ray actor class of :class:`Worker`."""
    return ray.remote(concurrency_groups={_ASIDE: 1})(Worker)
