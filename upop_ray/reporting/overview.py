"""What TensorBoard says in words, and which of its charts lie over each other: the run ``summary``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from upop_ray.reporting.curves import SIZES, SPLITS, curve_tag, margin_tags
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.table import drawn_text
from upop_ray.store import Store, SweepPaths
from upop_ray.tracking import TensorBoard

#: a table is written again when there is this share of points more: a long sweep does not write a table for each
_GROWTH = 1.1
_HOW_TO_READ = "\n".join(
    (
        "**Time series**, with *Smoothing* at 0 (it bends curves of few points), as in the address "
        "`http://localhost:6006/?smoothing=0#timeseries`:",
        "",
        "- `curve by ...`: runs `curves/METHOD` lie over each other; `curves/dense` is the model before pruning. "
        "The step is the share of the whole model's parameters (or multiply-accumulates, MACs) that is gone, in tenths "
        "of a percent: 240 means 24%. Several seeds have a curve each, and one of their mean. Where settings were "
        "drawn, the draw that is best on validation counts.",
        "- `kept/...`: pictures of what is kept of each layer; the slider goes through the search.",
        "- `search/...`, `retrain/...`: losses, learning rates and speed of runs `points/METHOD-RATIO-SEED`.",
        "",
        "**Custom scalars**: both splits in one chart, the spread over seeds (mean, and one deviation around it), and "
        "of a single run what each tower keeps while it is searched.",
        "",
        "**HParams**: points by settings and results; the parallel coordinates show many at once.",
        "",
        "Choose by validation; test is for reporting.",
    )
)
Layout = dict[str, dict[str, tuple[str, list[str]]]]


class Overview:
    """Writes the table of finished points as it grows, how to read the rest, and the layout of custom scalars."""

    def __init__(self, store: Store, sweep: str) -> None:
        self._store, self._folder = store, f"{SweepPaths(sweep).tensorboard}/summary"
        store.remove(self._folder)
        self._board: TensorBoard | None = None
        self._shown = 0

    def update(self, rows: Sequence[PointRow], last: bool = False) -> None:
        """Write the table, when a share of the points is new or these are the last."""
        done = [row for row in rows if row.manifest]
        if not done or len(done) == self._shown or (len(done) < _GROWTH * self._shown and not last):
            return
        if self._board is None:
            self._board = TensorBoard(self._store, self._folder)
            self._board.text("how to read this", 0, _HOW_TO_READ)
            seeds = max(1, len({row.seed for row in rows}))
            self._board.layout(layout(_manifest(done[0])["headline"], seeds))
        self._board.text("points", len(done), points_markdown(done))
        self._board.flush()
        self._shown = len(done)

    def close(self) -> None:
        """End the run."""
        if self._board is not None:
            self._board.close()
            self._board = None


def layout(headline: str, seeds: int) -> Layout:
    """The charts of the page of custom scalars: category -> title -> (kind, tags)."""
    pairs = [(split, size) for size in SIZES for split in SPLITS]
    curve: dict[str, tuple[str, list[str]]] = {
        f"{headline} by {name}: validation and test": (
            "Multiline",
            [f"^{re.escape(curve_tag(split, headline, size))}$" for split in SPLITS],
        )
        for size, name in SIZES.items()
    }
    charts: Layout = {"ratio and accuracy (runs curves/)": curve}
    if seeds > 1:
        charts["spread over seeds (runs curves/... mean)"] = {
            f"{split} {headline} by {SIZES[size]}": (
                "Margin",
                [curve_tag(split, headline, size), *margin_tags(split, headline, size)],
            )
            for split, size in pairs
        }
    charts["one point (choose a run points/)"] = {
        "share kept of each tower and kind over the search": ("Multiline", ["^search/kept/"]),
        f"validation {headline} while retraining": ("Multiline", [f"^retrain/validation/{headline}$"]),
        "loss of search and retraining": ("Multiline", ["^(search|retrain)/loss$"]),
    }
    return charts


def points_markdown(rows: Sequence[PointRow]) -> str:
    """A table of finished points, the dense model first."""
    first = _manifest(rows[0])
    headline, dense = first["headline"], first["dense"]
    names = ["point", "params", "MACs", "validation", "test", "to dense"]
    has_draws = any(row.drawn for row in rows)
    scores = [f"{dense[split][headline]:.2f}" for split in SPLITS]
    lines = [["**dense**", *(_millions(dense[size]) for size in SIZES), *scores, ""] + [""] * has_draws]
    for row in sorted(rows, key=lambda row: (row.ratio, row.method, row.seed, row.draw)):
        manifest = _manifest(row)
        sizes = [f"{_millions(manifest[size])}, -{manifest['compression'][size]:.0%}" for size in SIZES]
        metrics = [f"{row.metric(split):.2f}" for split in SPLITS]
        lines.append([row.label, *sizes, *metrics, f"{row.metric('test') - row.dense_metric('test'):+.2f}"])
        if has_draws:
            lines[-1].append(drawn_text(row.drawn))
    table = [names + ["drawn"] * has_draws, ["---", *["---:"] * (len(names) - 1), *["---"] * has_draws], *lines]
    return f"{headline}; *to dense* is on test.\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in table)


def _manifest(row: PointRow) -> Mapping[str, Any]:
    assert row.manifest is not None
    return row.manifest


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f} M"
