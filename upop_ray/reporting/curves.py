"""Ratio-accuracy curves for TensorBoard: one run per setting, its step the share removed, so that runs overlay."""

from collections.abc import Sequence

from upop_ray.reporting.points import PointRow, best_draws, spread
from upop_ray.store import Store, SweepPaths
from upop_ray.tracking import TensorBoard

#: sizes of a model, and what the groups of their curves are called; TensorBoard sorts them, and draws nothing in a
#: chart with parentheses in its title
SIZES = {"parameters": "parameters removed", "macs": "work removed in MACs"}
SPLITS = ("validation", "test")
#: the run of the dense model's line
DENSE = "dense"


def curve_tag(split: str, headline: str, size: str) -> str:
    """Scalar of a curve."""
    return f"curve by {SIZES[size]}/{split} {headline}"


def margin_tags(split: str, headline: str, size: str) -> tuple[str, str]:
    """Scalars of a curve over seeds: one deviation below the mean, and one above."""
    what = f"spread by {SIZES[size]}/{split} {headline}"
    return f"{what} - deviation", f"{what} + deviation"


class Curves:
    """Writes the curves of a sweep as its points finish.

    A step is the share of the whole model's parameters (or MACs) that is gone, in tenths of a percent; the dense model
    is at step 0. TensorBoard draws in the order of writing, so a point is written when those before it are there.
    """

    def __init__(self, store: Store, sweep: str) -> None:
        self._store, self.folder = store, f"{SweepPaths(sweep).tensorboard}/curves"
        store.remove(self.folder)
        self._boards: dict[str, TensorBoard] = {}
        self._written: set[tuple[str, float]] = set()
        self._dense_until: dict[str, int] = {}

    def update(self, rows: Sequence[PointRow], pending: Sequence[tuple[str, float]] = ()) -> None:
        """Write what is new.

        :param pending: (method, ratio) of points that are still to come
        """
        for name, points in curves(best_draws(rows)).items():
            method = points[0][1][0].method
            horizon = min((ratio for other, ratio in pending if other == method), default=2.0)
            for ratio, same in points:
                if ratio < horizon and (name, ratio) not in self._written:
                    self._write(name, same)
                    self._written.add((name, ratio))
        for board in self._boards.values():
            board.flush()

    def close(self) -> None:
        """End the runs."""
        for board in self._boards.values():
            board.close()
        self._boards.clear()

    def _write(self, name: str, rows: Sequence[PointRow]) -> None:
        is_new = name not in self._boards
        for size in SIZES:
            removed = round(1000 * spread([_removed(row, size) for row in rows])[0])
            self._extend_dense(rows[0], size, removed)
            if is_new:
                # without a spread, its band begins here too
                self._add(name, [rows[0]] * len(rows), size, 0)
            self._add(name, rows, size, removed)

    def _extend_dense(self, row: PointRow, size: str, until: int) -> None:
        """Draw the dense model's level on to a step."""
        if size not in self._dense_until:
            self._add(DENSE, [row], size, 0)
        if until > self._dense_until.get(size, 0):
            self._add(DENSE, [row], size, until)
            self._dense_until[size] = until

    def _add(self, name: str, rows: Sequence[PointRow], size: str, step: int) -> None:
        """Add the mean over rows (of the dense model at step 0 and on its own line), and its margins."""
        is_dense = step == 0 or name == DENSE
        headline = _headline(rows[0])
        for split in SPLITS:
            values = [row.dense_metric(split) if is_dense else row.metric(split) for row in rows]
            mean, deviation = spread(values)
            scalars = {curve_tag(split, headline, size): mean}
            if len(rows) > 1:
                low, high = margin_tags(split, headline, size)
                scalars |= {low: mean - deviation, high: mean + deviation}
            self._board(name).scalars(step, scalars)

    def _board(self, name: str) -> TensorBoard:
        if name not in self._boards:
            self._boards[name] = TensorBoard(self._store, f"{self.folder}/{name}")
        return self._boards[name]


def _removed(row: PointRow, size: str) -> float:
    assert row.manifest is not None
    return float(row.manifest["compression"][size])


def _headline(row: PointRow) -> str:
    assert row.manifest is not None
    return str(row.manifest["headline"])


def curves(rows: Sequence[PointRow]) -> dict[str, list[tuple[float, list[PointRow]]]]:
    """Name -> (ratio, rows) in order: one curve for each method and seed, and their mean where there are several."""
    seeds = sorted({row.seed for row in rows})
    result: dict[str, list[tuple[float, list[PointRow]]]] = {}
    for method in sorted({row.method for row in rows}):
        own = [row for row in rows if row.method == method]
        for seed in seeds if len(seeds) > 1 else []:
            points = [(row.ratio, [row]) for row in own if row.seed == seed]
            if points:
                result[f"{method} seed {seed}"] = sorted(points, key=lambda point: point[0])
        ratios = sorted({row.ratio for row in own})
        name = f"{method} mean" if len(seeds) > 1 else method
        result[name] = [(ratio, [row for row in own if row.ratio == ratio]) for ratio in ratios]
    return result
