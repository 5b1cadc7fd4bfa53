"""Yes-or-no questions whose words give nothing away: each thing is affirmed as often as it is denied."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# a thing that still has no place after as many tries is asked of nobody
_TRIES = 200


class Asked(NamedTuple):
    """Whether the drawing in a row is, or has, a thing."""

    row: int
    thing: str
    answer: bool


def ask(own: Sequence[Sequence[str]], denied: Callable[[int, str], bool], draws: np.random.Generator) -> list[Asked]:
    """Ask half of the drawings for something of their own, and the other half for the same things, which they lack.

    :param own: what may be affirmed of each row; a row without anything is not asked
    :param denied: whether a thing may be denied of a row
    :return: at most one question a row; of each thing as many with yes as with no
    """
    rows = [int(row) for row in draws.permutation(len(own)) if own[row]]
    half = len(rows) // 2
    affirmed = [(row, own[row][int(draws.integers(len(own[row])))]) for row in rows[:half]]
    others = rows[half : 2 * half]
    things = [affirmed[place][1] for place in draws.permutation(half)]
    _exchange(others, things, denied, draws)
    refused = [(row, thing) for row, thing in zip(others, things, strict=True) if denied(row, thing)]
    kept = _as_often(affirmed, refused)
    return [*(Asked(row, thing, True) for row, thing in kept), *(Asked(row, thing, False) for row, thing in refused)]


def _exchange(
    rows: list[int], things: list[str], denied: Callable[[int, str], bool], draws: np.random.Generator
) -> None:
    for place in range(len(rows)):
        if denied(rows[place], things[place]):
            continue
        for other in draws.integers(len(rows), size=_TRIES).tolist():
            if denied(rows[place], things[other]) and denied(rows[other], things[place]):
                things[place], things[other] = things[other], things[place]
                break


def _as_often(affirmed: list[tuple[int, str]], refused: list[tuple[int, str]]) -> list[tuple[int, str]]:
    left: defaultdict[str, int] = defaultdict(int)
    for _, thing in refused:
        left[thing] += 1
    kept = []
    for row, thing in affirmed:
        if left[thing]:
            left[thing] -= 1
            kept.append((row, thing))
    return kept
