"""How a data set that is not built in is read."""

from dataclasses import dataclass, field
from pathlib import Path

from upop_ray.data.order import Shuffle


@dataclass(frozen=True)
class Reading:
    """How a data set that is not built in is read; only `shuffle` changes what comes of it.

    :param cache: folder for what is fetched from a remote store; None is the folder `data` of
        :func:`upop_ray.data.folders.cache_root`
    :param cache_bytes: what that folder may hold; :class:`upop_ray.data.cache.TableCache` says what may exceed it
    :param memory_bytes: images of a split whose files are at most so large are held in memory
    """

    shuffle: Shuffle = field(default_factory=Shuffle)
    cache: Path | None = None
    cache_bytes: int = 20 * 10**9
    memory_bytes: int = 512 * 10**6
