"""What sweeps found, as a page, pictures and a table, or the point to take: ``python -m upop_ray.report STORE``."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from upop_ray.errors import ConfigError
from upop_ray.terminal import console, guarded

if TYPE_CHECKING:
    from upop_ray.store import Store

_HELP = """\
Report what the sweeps of a store found: one page that works offline (report.html), its pictures as PNG and SVG
(figures/), all points as points.csv and points.parquet, and what they cost as costs.csv. Several sweeps are compared
on one page.

With a limit, name the point to take instead: under --max-drop the smallest model, otherwise the one that is best on
validation. Limits may be combined. Validation alone chooses; the test metric is printed, and chooses nothing."""

_EPILOG = """\
examples:
  python -m upop_ray.report results
  python -m upop_ray.report s3://bucket/results first_sweep second_sweep --to report
  python -m upop_ray.report results builtin_clip --max-drop 1.0
  python -m upop_ray.report results --max-params 1.2M --max-macs 40M
  python -m upop_ray.report results builtin_clip --watch

exit code: 0 done, 1 no point is within the limits, 2 something given is wrong"""

#: seconds for which an outage of what is read or written is waited for; somebody sits before it
_PATIENCE = 30.0
_LETTERS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # options may stand before the names of sweeps too
    options = _parser().parse_intermixed_args(arguments)
    # what reads stores takes a second to import, which --help need not wait for
    from upop_ray.reporting.recommend import Limits
    from upop_ray.store import Store

    limits = Limits(
        _amount("--max-drop", options.max_drop),
        _amount("--max-params", options.max_params),
        _amount("--max-macs", options.max_macs),
        _amount("--max-latency", options.max_latency),
    )
    store = Store(options.store, _PATIENCE)
    if options.watch:
        return _watch(store, options.sweeps, limits != Limits() or options.to is not None)
    if limits == Limits():
        return _report(store, options.sweeps, options.to)
    if options.to:
        raise ConfigError("--to", "is for the page, a limit is given too", "leave out one of them")
    from upop_ray.reporting.advice import advise

    lines, found = advise(store, options.sweeps, limits)
    for line in lines:
        console.print(line)
    return 0 if found else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.report",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", help="folder or s3:// address that the sweeps have as their setting store")
    parser.add_argument("sweeps", nargs="*", metavar="sweep", help="names of sweeps (default: all of the store)")
    parser.add_argument(
        "--to", metavar="FOLDER", help="where to write (default: STORE/report, for a bucket ./report); may be s3://"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show a sweep while it runs (default: the last one) until Ctrl-C",
    )
    limits = parser.add_argument_group("limits, to have a point named")
    limits.add_argument("--max-drop", metavar="POINTS", help="of the headline metric below dense, on validation")
    limits.add_argument("--max-params", metavar="COUNT", help="parameters, for example 1.2M")
    limits.add_argument("--max-macs", metavar="COUNT", help="multiply-accumulates of one example, for example 40M")
    limits.add_argument(
        "--max-latency", metavar="MS", help="median milliseconds, of points that upop_ray.bench measured"
    )
    return parser


def _amount(option: str, text: str | None) -> float | None:
    """A number that may end in k, M or G.

    :raises ConfigError: it is none
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)\s*([kMG]?)", text)
    if found is None:
        raise ConfigError(
            option, f"must be a number of at least 0, got {text!r}", "write for example 1.0, 350k or 1.2M"
        )
    return float(found[1]) * _LETTERS[found[2]]


def _watch(store: "Store", sweeps: Sequence[str], asks_more: bool) -> int:
    """
    :raises ConfigError: something else is asked for too
    """
    if asks_more or len(sweeps) > 1:
        more = "a limit or --to is given too" if asks_more else f"{len(sweeps)} sweeps are named"
        raise ConfigError("--watch", f"shows one sweep and nothing else, {more}", "leave out one of them")
    from upop_ray.reporting.watch import latest_sweep, watch

    return watch(store, sweeps[0] if sweeps else latest_sweep(store))


def _report(store: "Store", sweeps: Sequence[str], to: str | None) -> int:
    from upop_ray.reporting.writing import FIGURES, PAGE, default_target, write_report
    from upop_ray.store import Store

    target = Store(to or default_target(store), _PATIENCE)
    points = write_report(store, sweeps, target)
    console.print(f"report of {points} finished points: {target.path(PAGE)}")
    console.print(f"with it: {FIGURES}/*.png and *.svg, points.csv, points.parquet, costs.csv")
    return 0


if __name__ == "__main__":
    guarded(main)
