"""A report as files: each is there whole or not at all, and the page, which is the last one, needs no other."""

from collections.abc import Mapping, Sequence

from upop_ray.reporting import records
from upop_ray.reporting.blocks import html
from upop_ray.reporting.page import build_page
from upop_ray.reporting.sweeps import read_sweeps
from upop_ray.store import Store

PAGE = "report.html"
#: its files are of the report alone: those that a new one does not have are removed
FIGURES = "figures"


def write_report(store: Store, names: Sequence[str], target: Store) -> int:
    """Write the report of sweeps.

    :param names: of sweeps; none are all
    :returns: how many finished points it is about
    :raises StoreError: there is nothing to report, or the target cannot be written
    """
    sweeps = read_sweeps(store, names)
    for name, content in records.files(records.records(store, sweeps)).items():
        target.write(name, content)
    page = build_page(store, sweeps)
    figures = {name: content for chart in page.charts for name, content in chart.files().items()}
    _replace_figures(target, figures)
    target.write(PAGE, html(page).encode())
    return sum(len(sweep.finished) for sweep in sweeps)


def default_target(store: Store) -> str:
    """Beside what it is about, where a browser can open it."""
    return store.path("report") if store.is_local else "report"


def _replace_figures(target: Store, figures: Mapping[str, bytes]) -> None:
    for name in target.list(FIGURES):
        if name not in figures:
            target.remove(f"{FIGURES}/{name}")
    for name, content in figures.items():
        target.write(f"{FIGURES}/{name}", content)
