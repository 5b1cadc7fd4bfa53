"""Trying again: what fails in a way that passes is tried until a deadline, after growing random pauses."""

import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from upop_ray.store.failures import explained, passes

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

#: seconds: the longest first pause, which doubles each time, and the longest of all
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
#: seconds after which the waiting is told
TELL_AFTER = 10.0
#: seconds beyond which nothing in this process is tried again
_most = math.inf


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Wait for no outage longer than this, whatever is asked: for commands that answer at once, as a plan does."""
    global _most
    before, _most = _most, min(_most, seconds)
    try:
        yield
    finally:
        _most = before


def persevere(action: Callable[[], _Result], what: str, seconds: float) -> _Result:
    """The result of ``action``, tried until it works or ``seconds`` have gone by since it first failed.

    Pauses are drawn between 0 and a bound that doubles ("full jitter"), so that many workers do not come back at once.

    :param what: for the log, for example ``writing s3://bucket/a``
    :raises Exception: the last failure, when the time is over, or the first that does not pass by itself
    """
    patience = _Patience(what, min(seconds, _most))
    for attempt in itertools.count():
        try:
            result = action()
        except Exception as error:
            pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
            if not passes(error) or not patience.lasts(pause, error):
                raise
            time.sleep(pause)
        else:
            patience.rewarded()
            return result
    raise AssertionError("counting does not end")


class _Patience:
    """How long something has been failing, and whether that was told."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds = what, seconds
        self._since: float | None = None
        self._told = False

    def lasts(self, pause: float, error: Exception) -> bool:
        """Whether there is time for another pause after ``error``; told when it has gone on for a while."""
        now = time.monotonic()
        self._since = self._since if self._since is not None else now
        waited = now - self._since
        if waited + pause > self._seconds:
            return False
        if waited + pause >= TELL_AFTER and not self._told:
            self._told = True
            until = datetime.now() + timedelta(seconds=self._seconds - waited)
            problem = f"{self._what} does not work, tried until {until:%H:%M:%S}"
            _LOG.warning(f"store: {problem}: {explained(error)}")
        return True

    def rewarded(self) -> None:
        """Say that it works again, if it was told that it does not."""
        if self._told and self._since is not None:
            _LOG.warning(f"store: {self._what} works again after {time.monotonic() - self._since:.0f} s")
