"""The points of sweeps as flat rows, for spreadsheets and data frames."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from upop_ray.reporting.points import PointRow
from upop_ray.reporting.sweeps import SweepResults
from upop_ray.store import PointPaths, Store

_METRICS = ("validation", "test", "before_retraining")


def records(store: Store, sweeps: Sequence[SweepResults]) -> pa.Table:
    """One row a point, also of those that are not finished; columns of settings and metrics are dotted."""
    rows = [_record(store, sweep.name, row) for sweep in sweeps for row in sweep.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in columns})


def files(table: pa.Table) -> dict[str, bytes]:
    """Name -> content of the rows as CSV and Parquet."""
    text, binary = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(table, text)
    pq.write_table(table, binary)
    return {"points.csv": text.getvalue(), "points.parquet": binary.getvalue()}


def _record(store: Store, sweep: str, row: PointRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "sweep": sweep,
        "method": row.method,
        "ratio": row.ratio,
        "seed": row.seed,
        "draw": row.draw,
        **{f"drawn.{name}": _scalar(value) for name, value in row.drawn.items()},
        "hash": row.hash,
        "state": row.state,
        "cause": row.cause,
    }
    return found | _of_finished(row.manifest, store.path(PointPaths(row.hash).model)) if row.manifest else found


def _of_finished(manifest: Mapping[str, Any], model: str) -> dict[str, Any]:
    sizes = {name: manifest[name] for name in ("parameters", "macs")}
    gone = {f"{name}_removed": value for name, value in manifest["compression"].items()}
    metrics = {f"{kind}.{name}": value for kind in _METRICS for name, value in manifest["metrics"][kind].items()}
    dense = {
        f"dense.{split}.{name}": value
        for split in ("validation", "test")
        for name, value in manifest["dense"][split].items()
    }
    kept = {f"kept.{name}": value for name, value in manifest["kept_share"].items()}
    seconds = {f"seconds.{name}": value for name, value in manifest["seconds"].items()}
    achieved = {"achieved_ratio": manifest["budget"]["achieved"], "headline": manifest["headline"]}
    return sizes | gone | achieved | metrics | dense | kept | seconds | {"model": model}


def _scalar(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | None) else repr(value)


def _column(values: Sequence[Any]) -> pa.Array:
    """Values of one type, and where settings were drawn of several, as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])
