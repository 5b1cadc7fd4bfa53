"""What a point keeps of each layer, and how the search got there."""

import io
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from upop_ray.errors import StoreError
from upop_ray.reporting.points import PointRow
from upop_ray.store import PointPaths, Store

#: moments of the search that are shown: the dense model, then after each tenth of it; the last is the sliced model
MOMENTS = 11
_AT_ONCE = 32
_PARTS = {"attn": "attention", "mlp": "MLP", "cross": "cross attention"}
_SITE = re.compile(r"(?P<stack>.+)\.(?P<layer>\d+)\.(?P<part>[a-z]+)(?P<number>\d*)")


@dataclass(frozen=True)
class SiteCourse:
    """One site of a point.

    :param group: what stands in a line of the picture, for example ``vision MLP``
    :param kept: units that are kept at each of the ``MOMENTS``
    """

    site: str
    group: str
    layer: int
    units: int
    kept: Sequence[int]

    @property
    def tower(self) -> str:
        """First word of the group."""
        return self.group.partition(" ")[0]


def courses(store: Store, rows: Sequence[PointRow]) -> dict[str, list[SiteCourse]]:
    """Hash of each finished point -> its sites; points whose manifest does not describe sites are left out.

    Points without a search have the same widths at all moments but the first.

    :raises StoreError: what a point has logged cannot be read
    """
    known = [row for row in rows if row.manifest and "sites" in row.manifest]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        logged = list(pool.map(lambda row: _logged(store, row.hash), known))
    return {row.hash: _courses(row, updates) for row, updates in zip(known, logged, strict=True)}


def _logged(store: Store, point: str) -> dict[int, dict[str, int]]:
    """Step of the search -> site -> units kept after it, of each mask update."""
    name = PointPaths(point).metrics
    try:
        content = io.BytesIO(store.read(name))
        table = pq.read_table(content, columns=["step", "name", "value"], filters=[("phase", "=", "masks")])
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{store.path(name)}: not a readable Parquet file: {error}") from error
    updates: dict[int, dict[str, int]] = {}
    for step, site, value in zip(*(column.to_pylist() for column in table.itercolumns()), strict=True):
        updates.setdefault(step, {})[site] = int(value)
    return updates


def _courses(row: PointRow, updates: Mapping[int, Mapping[str, int]]) -> list[SiteCourse]:
    assert row.manifest is not None
    sites, final = row.manifest["sites"], row.manifest["kept_units"]
    dense = {name: site["units"] for name, site in sites.items()}
    moments = [dense, *(_at(updates, moment, final) for moment in range(1, MOMENTS - 1)), final]
    return [
        SiteCourse(name, *placed(name), site["units"], [int(moment[name]) for moment in moments])
        for name, site in sites.items()
    ]


def _at(updates: Mapping[int, Mapping[str, int]], moment: int, final: Mapping[str, int]) -> Mapping[str, int]:
    """Widths after the last update up to a moment; a search that has not updated yet has the first ones."""
    if not updates:
        return final
    until = max(updates) * moment / (MOMENTS - 1)
    return updates[max((step for step in updates if step <= until), default=min(updates))]


def placed(site: str) -> tuple[str, int]:
    """(group, layer) of a site by its name, ``vision.0.mlp`` or ``text.1.cross0``."""
    found = _SITE.fullmatch(site)
    if found is None:
        return site, 0
    part = " ".join(filter(None, (_PARTS.get(found["part"], found["part"]), found["number"])))
    return f"{found['stack']} {part}", int(found["layer"])
