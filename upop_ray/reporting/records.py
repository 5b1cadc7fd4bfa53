"""The points of sweeps as flat rows, for spreadsheets and data frames."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from upop_ray.reporting.ledger import Hours, Ledger, PointCost
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.sweeps import SweepResults
from upop_ray.store import PointPaths, Store

_METRICS = ("validation", "test", "before_retraining")


def records(store: Store, sweeps: Sequence[SweepResults], ledgers: Mapping[str, Ledger]) -> pa.Table:
    """One row a point, also of those that are not finished; columns of settings and metrics are dotted.

    ``kept.TOWER/KIND`` are shares, ``kept/SITE`` units; hours are all that a point cost, whoever spent them.

    :param ledgers: by names of sweeps
    """
    return _table(
        _record(store, sweep.name, row) | _hours("", hours.get(row.hash, Hours()))
        for sweep, hours in ((sweep, ledgers[sweep.name].by_point) for sweep in sweeps)
        for row in (*sweep.rows, *sweep.others)
    )


def costs(ledgers: Mapping[str, Ledger]) -> pa.Table:
    """What each point of sweeps cost by what the hours went into, and what was idle (which is of no point)."""
    return _table(
        {"sweep": sweep, "point": name, "hash": point, "state": state}
        | {column: hours for part in parts for column, hours in _hours(f".{part}", parts[part]).items()}
        for sweep, ledger in ledgers.items()
        for name, point, state, parts in (
            *((each.row.label, each.row.hash, each.row.state, _parts(each)) for each in ledger.points),
            ("idle", "", "", {"idle": ledger.idle, "spent": ledger.idle}),
        )
    )


def files(points: pa.Table, spent: pa.Table) -> dict[str, bytes]:
    """Name -> content of both tables as CSV, and of the points as Parquet."""
    binary = io.BytesIO()
    pq.write_table(points, binary)
    return {"points.csv": _csv(points), "points.parquet": binary.getvalue(), "costs.csv": _csv(spent)}


def _csv(table: pa.Table) -> bytes:
    text = io.BytesIO()
    pyarrow.csv.write_csv(table, text)
    return text.getvalue()


def _parts(cost: PointCost) -> dict[str, Hours]:
    """Hours of a point by part; ``spent`` is their sum, ``saved`` is in none of them."""
    return {**cost.parts, "idle": Hours(), "spent": cost.spent, "saved": cost.saved}


def _hours(suffix: str, hours: Hours) -> dict[str, float]:
    return {f"cpu_hours{suffix}": hours.cpu, f"gpu_hours{suffix}": hours.gpu}


def _table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in columns})


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
    kept |= {f"kept/{site}": units for site, units in manifest["kept_units"].items()}
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
