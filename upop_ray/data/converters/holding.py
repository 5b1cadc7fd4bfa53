"""Parts that are held out of training where a data set lacks labels for choosing or for reporting."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from upop_ray.data.converters.base import Item


def ranked(ids: Sequence[str], name: str) -> list[str]:
    """Ids in an order that is random, and the same wherever and whenever it is drawn.

    :param name: of the data set; another one gives another order
    """
    # an id that is not UTF-8 is refused where all of them are checked
    return sorted(ids, key=lambda id: hashlib.sha256(f"{name}/{id}".encode(errors="surrogatepass")).digest())


def hold_out(
    items: Sequence[Item], share: float, name: str, group: Callable[[Item], str] = lambda item: ""
) -> tuple[list[Item], list[Item]]:
    """Divide items into those that stay and those that are held out, drawn as in :func:`ranked`.

    :param share: of each group, rounded up; one item of a group always stays
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for item in items:
        groups[group(item)].append(item.id)
    held: set[str] = set()
    for ids in groups.values():
        held.update(ranked(ids, name)[: min(math.ceil(share * len(ids)), len(ids) - 1)])
    return [item for item in items if item.id not in held], [item for item in items if item.id in held]
