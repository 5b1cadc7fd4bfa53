"""Published reference points beside ours."""

from upop_ray.config import PublishedPoint
from upop_ray.reporting.blocks import Cell, Table, cells
from upop_ray.reporting.candidates import candidates
from upop_ray.reporting.charting import Record
from upop_ray.reporting.points import spread
from upop_ray.reporting.sweeps import SweepResults, quantity


def published_places(sweep: SweepResults, headline: str) -> list[Record]:
    """Published points that have the headline metric; shares removed are None where the source gives no sizes."""
    found = sweep.published
    if found is None:
        return []
    return [
        {
            "source": point.source or found.source,
            "ratio": point.ratio,
            "score": point.scores[headline],
            **{size: _removed(point, found.points, size) for size in ("parameters", "macs")},
        }
        for point in found.points
        if headline in point.scores
    ]


def published_table(sweep: SweepResults) -> Table | None:
    """Each published score with ours of the same ratio on our test split; None where nothing was published."""
    found = sweep.published
    if found is None or not found.points:
        return None
    columns = ("ratio", "metric", "published", "ours, test", "parameters", "MACs", "source")
    rows = [
        [
            Cell(f"{point.ratio:g}"),
            Cell(metric),
            Cell(f"{score:g}"),
            Cell(_ours(sweep, point.ratio, metric)),
            Cell(quantity(point.parameters) if point.parameters else ""),
            Cell(quantity(point.macs) if point.macs else ""),
            Cell(point.source or "as above"),
        ]
        for point in found.points
        for metric, score in point.scores.items()
    ]
    return Table(columns, [cells(row) for row in rows], numbers=columns[:1] + columns[2:3], long=columns[-1:])


def _removed(point: PublishedPoint, points: tuple[PublishedPoint, ...], size: str) -> float | None:
    """Share of the dense model of the same source that is gone."""
    own = getattr(point, size)
    dense = next((getattr(other, size) for other in points if other.ratio == 0 and getattr(other, size)), None)
    return 1 - own / dense if own and dense else None


def _ours(sweep: SweepResults, ratio: float, metric: str) -> str:
    if ratio == 0:
        manifest = sweep.finished[0].manifest
        assert manifest is not None
        return f"dense {manifest['dense']['test'][metric]:.2f}" if metric in manifest["dense"]["test"] else ""
    told = []
    for offer in candidates(sweep):
        tests = [row.manifest["metrics"]["test"] for row in offer.rows if row.manifest]
        if offer.ratio == ratio and metric in tests[0]:
            told.append(f"{offer.method} {spread([test[metric] for test in tests])[0]:.2f}")
    return ", ".join(told)
