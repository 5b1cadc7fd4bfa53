"""Ratio-accuracy curves for TensorBoard: one run per setting, its step the share removed, so that runs overlay."""

from collections.abc import Sequence

from upop_ray.reporting.points import PointRow, best_draws, spread
from upop_ray.store import Store, SweepPaths
from upop_ray.tracking import TensorBoard

SIZES = ("parameters", "macs")
SPLITS = ("validation", "test")


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
        first = rows[0]
        assert first.manifest is not None
        headline = first.manifest["headline"]
        if name not in self._boards:
            self._boards[name] = TensorBoard(self._store, f"{self.folder}/{name}")
            for size in SIZES:
                self._boards[name].scalars(
                    0, {f"{split} {headline} by {size} removed": first.dense_metric(split) for split in SPLITS}
                )
        for size in SIZES:
            removed = spread([float(row.manifest["compression"][size]) for row in rows if row.manifest])[0]
            values = {split: spread([row.metric(split) for row in rows])[0] for split in SPLITS}
            self._boards[name].scalars(
                round(1000 * removed), {f"{split} {headline} by {size} removed": values[split] for split in SPLITS}
            )


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
