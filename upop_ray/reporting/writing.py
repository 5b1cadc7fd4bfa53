"""A report as files: each is there whole or not at all, and the page, which is the last one, needs no other."""

import re
from collections.abc import Mapping, Sequence

from upop_ray.errors import StoreError
from upop_ray.reporting import records
from upop_ray.reporting.blocks import html
from upop_ray.reporting.ledger import read_ledgers
from upop_ray.reporting.page import build_page
from upop_ray.reporting.sweeps import read_sweeps
from upop_ray.store import Store
from upop_ray.store.many import read_json_if_there

PAGE = "report.html"
FIGURES = "figures"
#: names of the figures that a report has written: those that a new one does not have are removed, and nothing else,
#: for a folder may hold other things of its owner
FIGURE_LIST = "report.figures.json"
_FIGURE = re.compile(r"[\w.+=-]+\.(?:svg|png)")


def write_report(store: Store, names: Sequence[str], target: Store) -> int:
    """Write the report of sweeps.

    :param names: of sweeps; none are all
    :returns: how many finished points it is about
    :raises StoreError: there is nothing to report, or the target cannot be written
    """
    sweeps = read_sweeps(store, names)
    ledgers = read_ledgers(store, sweeps)
    for name, content in records.files(records.records(store, sweeps, ledgers), records.costs(ledgers)).items():
        target.write(name, content)
    page = build_page(store, sweeps, ledgers)
    figures = {name: content for chart in page.charts for name, content in chart.files().items()}
    _replace_figures(target, figures)
    target.write(PAGE, html(page).encode())
    return sum(len(sweep.finished) for sweep in sweeps)


def default_target(store: Store) -> str:
    """Beside what it is about, where a browser can open it."""
    return store.path("report") if store.is_local else "report"


def _replace_figures(target: Store, figures: Mapping[str, bytes]) -> None:
    earlier = _listed(target)
    # all of them, so that what an interrupted report leaves is known too
    target.write_json(FIGURE_LIST, sorted(earlier | set(figures)))
    for name, content in figures.items():
        target.write(f"{FIGURES}/{name}", content)
    for name in earlier - set(figures):
        target.remove(f"{FIGURES}/{name}")
    target.write_json(FIGURE_LIST, sorted(figures))


def _listed(target: Store) -> set[str]:
    """Figures that an earlier report has written."""
    found = read_json_if_there(target, FIGURE_LIST)
    if found is None:
        return set()
    if not isinstance(found, list) or not all(isinstance(name, str) and _FIGURE.fullmatch(name) for name in found):
        raise StoreError(f"{target.path(FIGURE_LIST)}: is no list of a report's figures; remove it")
    return set(found)
