"""What a latency measurement found: times of a model and of the dense one beside it, and what they mean in words.

``points/HASH/latency.json`` holds :func:`as_json` of it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import median, quantiles
from typing import Any

SCHEMA_VERSION = 1
#: a smaller difference is not worth calling one
_NOTICEABLE = 0.02


@dataclass(frozen=True)
class Spread:
    """Median with the 10th and 90th percentile."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Speedup:
    """How many times as fast the sliced model is: the median over rounds, and its 95% confidence interval."""

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """In words; a difference counts when the whole interval and 2% are on one side of 1."""
        if self.low > 1 and self.median > 1 + _NOTICEABLE:
            return f"{self.median:.2f}x as fast"
        if self.high < 1 and self.median < 1 - _NOTICEABLE:
            return f"slower ({self.median:.2f}x)"
        return "not faster"


@dataclass(frozen=True)
class Case:
    """One way to run a model.

    :param backend: ``eager``, ``compile`` or ``onnx``
    :param precision: ``fp32``, ``bf16`` or ``fp16``
    :param batch: examples of a call
    """

    backend: str
    precision: str
    batch: int


@dataclass(frozen=True)
class Row:
    """A case and its times in milliseconds a call.

    :param rounds: measurements of each model, taken in turns
    :param dense: None where there is no dense model to compare with
    :param problem: why it was not measured; then there are no times
    """

    case: Case
    rounds: int = 0
    sliced: Spread | None = None
    dense: Spread | None = None
    speedup: Speedup | None = None
    problem: str = ""


@dataclass(frozen=True)
class Latency:
    """A whole measurement.

    :param device: in words
    :param threads: of the CPU that a call may use
    :param load: mean number of processes that wanted to run in the last minute, when it began and ended
    :param macs: of one example, by ``sliced`` and, with a dense model, ``dense``
    :param parameters: in the same way
    """

    device: str
    threads: int
    load: tuple[float, float]
    versions: dict[str, str]
    macs: dict[str, int]
    parameters: dict[str, int]
    rows: tuple[Row, ...]


def row_of(case: Case, sliced: Sequence[float], dense: Sequence[float] | None) -> Row:
    """The row of a case from its times in seconds, which are paired where there are two."""
    own = spread([1e3 * seconds for seconds in sliced])
    if dense is None:
        return Row(case, len(sliced), own)
    ratios = [slow / fast for slow, fast in zip(dense, sliced, strict=True)]
    return Row(case, len(sliced), own, spread([1e3 * seconds for seconds in dense]), speedup(ratios))


def spread(values: Sequence[float]) -> Spread:
    """Median and percentiles of at least two values."""
    tenths = quantiles(values, n=10, method="inclusive")
    return Spread(median(values), tenths[0], tenths[-1])


def speedup(ratios: Sequence[float]) -> Speedup:
    """Median of paired ratios; its interval is that of the sign test, which supposes no distribution."""
    ordered, count = sorted(ratios), len(ratios)
    reach = 1.96 * math.sqrt(count) / 2
    low, high = math.floor(count / 2 - reach), math.ceil(count / 2 + reach)
    return Speedup(median(ordered), ordered[max(low, 0)], ordered[min(high, count - 1)])


def verdicts(found: Latency) -> list[str]:
    """A line for each backend and precision, by batch; none without a dense model."""
    if "dense" not in found.macs:
        return []
    share, lines = found.macs["sliced"] / found.macs["dense"], []
    measured = [row for row in found.rows if row.speedup is not None]
    for (backend, precision), rows in groupby(measured, key=lambda row: (row.case.backend, row.case.precision)):
        said = [f"{row.speedup.verdict} at batch {row.case.batch}" for row in rows if row.speedup is not None]
        lines.append(f"{share:.0%} of the MACs (at best {1 / share:.2f}x): {backend} {precision} {', '.join(said)}")
    return lines


def as_json(found: Latency) -> dict[str, Any]:
    """Plain values; times in milliseconds.

    ``headline`` is the first case that was measured, by which points are compared: ``milliseconds`` of this model,
    ``dense_milliseconds`` or null, and the case.
    """
    first = next((row for row in found.rows if row.sliced is not None), None)
    return {
        "schema_version": SCHEMA_VERSION,
        "headline": None if first is None else _headline(first),
        "device": found.device,
        "threads": found.threads,
        "load": list(found.load),
        "versions": found.versions,
        "macs": found.macs,
        "parameters": found.parameters,
        "rows": [asdict(row.case) | {k: v for k, v in asdict(row).items() if k != "case"} for row in found.rows],
        "verdicts": verdicts(found),
    }


def _headline(row: Row) -> dict[str, Any]:
    assert row.sliced is not None
    dense = None if row.dense is None else row.dense.median
    return {"milliseconds": row.sliced.median, "dense_milliseconds": dense, **asdict(row.case)}
