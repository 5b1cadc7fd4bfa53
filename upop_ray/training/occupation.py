"""How long an attempt holds its devices, noted in the store while it does; the ledger is made of these notes."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from upop_ray.errors import StoreError
from upop_ray.store import Store

_LOG = logging.getLogger(__name__)
SCHEMA_VERSION = 1
#: seconds between two notes: what the ledger cannot tell after a process was killed
_EVERY = 30.0
#: seconds that an outage of the store may hold up the last note
_PATIENCE = 10.0


@dataclass(frozen=True)
class Held:
    """What an attempt holds, and for whom.

    :param sweep: name of the sweep that computes the point; empty without one
    """

    sweep: str
    cpus: float
    gpus: float


class Occupation:
    """Counts until :meth:`end`; a thread of its own notes the time twice a minute.

    A note that cannot be written is left out: hours are no reason to end a point.
    """

    def __init__(self, store: Store, path: str, held: Held, since: float) -> None:
        """Count from the moment ``since`` of the monotonic clock."""
        self._store, self._path, self._held = store.hasty(_PATIENCE), path, held
        self._clock = since
        self._begun = time.time() - (time.monotonic() - since)
        self._start: float | None = None
        self._parts: dict[str, float] = {}
        self._ended = threading.Event()
        self._note("running")
        self._thread = threading.Thread(target=self._go_on, name="occupation", daemon=True)
        self._thread.start()

    def started(self) -> None:
        """Workers and data are ready: the time until now was start-up."""
        self._start = time.monotonic() - self._clock

    def worked(self, parts: Mapping[str, float]) -> None:
        """Take note of the seconds by part that the point has reported last."""
        self._parts = dict(parts)

    def end(self, how: str) -> None:
        """The devices are free again, or go on to another attempt; only the first end counts."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        self._note(how)

    def _go_on(self) -> None:
        while not self._ended.wait(_EVERY):
            self._note("running")

    def _note(self, state: str) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "sweep": self._held.sweep,
            "cpus": self._held.cpus,
            "gpus": self._held.gpus,
            "begun": self._begun,
            "seconds": time.monotonic() - self._clock,
            "start": self._start,
            "parts": self._parts,
            "state": state,
        }
        try:
            self._store.write_json(self._path, content)
        except StoreError as error:
            _LOG.warning(f"hours are not noted: {error}")
