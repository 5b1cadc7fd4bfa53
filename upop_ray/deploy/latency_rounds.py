"""Times of calls, taken in turns, so that what else happens on the machine meets all of them."""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

#: does its work, and returns when it is done
Call: TypeAlias = Callable[[], object]

_WARM_UP = 3
#: shorter than this a call is repeated, since the clock and the loop around it would count
_SHORTEST = 2e-3
#: enough for a confidence interval of a median
_FEWEST = 10


def interleaved(calls: Sequence[Call], seconds: float) -> list[list[float]]:
    """Seconds a call of each, one list each, entry by entry from the same round.

    Rounds are taken for about ``seconds``, at least 10; every second one goes backwards.
    """
    for call in calls:
        for _ in range(_WARM_UP):
            call()
    repeats = [max(1, round(_SHORTEST / timed(call, 1))) for call in calls]
    found: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(found[0]) < _FEWEST or time.perf_counter() < end:
        numbers = range(len(calls))
        for number in numbers if len(found[0]) % 2 == 0 else reversed(numbers):
            found[number].append(timed(calls[number], repeats[number]))
    return found


def timed(call: Call, repeats: int) -> float:
    """Mean seconds of a call over so many."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
