"""The report of sweeps as a page: what it says, in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from upop_ray.config import Price, parse
from upop_ray.errors import ConfigError
from upop_ray.reporting.allocation import SiteCourse, courses
from upop_ray.reporting.blocks import Block, Charts, Code, Heading, Lines, Page, Section, TableBlock, Text
from upop_ray.reporting.candidates import Knee, candidates, frontier, knees
from upop_ray.reporting.charting import Chart, Record
from upop_ray.reporting.costs import cost_lines
from upop_ray.reporting.curve_charts import Subject, curve_chart, frontier_chart
from upop_ray.reporting.dead import DeadSetting, dead_settings, unread_settings
from upop_ray.reporting.draw_charts import importance_chart, slice_chart
from upop_ray.reporting.draws import importances, rule_of
from upop_ray.reporting.facts import facts_of, title_of
from upop_ray.reporting.kept_charts import layers_chart, share_chart
from upop_ray.reporting.latencies import read_latencies
from upop_ray.reporting.ledger import Ledger
from upop_ray.reporting.reference import published_places, published_table
from upop_ray.reporting.sweeps import SweepResults, measures
from upop_ray.reporting.tables import (
    choices_table,
    environment_table,
    failures_table,
    latency_table,
    ledger_table,
    others_table,
    points_table,
)
from upop_ray.reporting.taking import export_command, load_lines
from upop_ray.store import Store


def build_page(store: Store, sweeps: Sequence[SweepResults], ledgers: Mapping[str, Ledger]) -> Page:
    """A report of sweeps that have finished points.

    :param ledgers: of :func:`upop_ray.reporting.ledger.read_ledgers`
    :raises StoreError: something of a point cannot be read
    """
    names = ", ".join(sweep.name for sweep in sweeps)
    sections = [
        Section("Curves", _curves(sweeps)),
        Section("What to take", _choices(store, sweeps)),
        Section("What is kept", _kept(store, sweeps)),
        Section("Drawn settings", _draws(sweeps)),
        Section("Points", _points(sweeps, ledgers)),
        Section("Latency", _latency(store, sweeps)),
        Section("Cost", [block for sweep in sweeps for block in _cost(sweep, ledgers[sweep.name])]),
        Section("Not finished", _unfinished(sweeps)),
        Section("Computed with other settings", _others(sweeps)),
        Section("Environment", [TableBlock(environment_table(sweeps))]),
    ]
    subtitle = f"Sweeps of {store.uri}. Validation chooses; test is computed once for each point and only reported."
    return Page(
        names, subtitle, [facts_of(sweep) for sweep in sweeps], [section for section in sections if section.blocks]
    )


_POINTS_NOTE = Text(
    "Sizes are of the whole model; the ratio is the asked share of what can be removed. Before retraining is "
    "measured on validation. Hours are those for which devices were held. All columns, and what each site keeps, are "
    "in points.csv and points.parquet beside this page; what the hours went into is in costs.csv."
)
_CURVES_NOTE = Text(
    "Lines are means over seeds, of the draw that is best on validation where settings were drawn; bands and bars are "
    "a deviation to each side. The dashed line is the dense model, at which every curve begins."
)


def _curves(sweeps: Sequence[SweepResults]) -> list[Block]:
    groups = measures(sweeps)
    blocks: list[Block] = [_CURVES_NOTE]
    for place, ((headline, data), members) in enumerate(groups.items()):
        offers = [offer for sweep in members for offer in candidates(sweep)]
        subject = subject_of(members)
        if len(groups) > 1:
            blocks.append(Heading(f"{headline} on {data}: {', '.join(sweep.name for sweep in members)}"))
        charts = [
            curve_chart(offers, split, size, subject)
            for size in ("parameters", "macs")
            for split in ("validation", "test")
        ]
        blocks.append(Charts(_apart(charts, str(place + 1) if len(groups) > 1 else "")))
        for sweep in members:
            table = published_table(sweep)
            if table is not None and sweep.published is not None:
                told = f"{sweep.published.source}; measured there on {sweep.published.split}."
                blocks += [Heading(f"Published, beside {sweep.name}"), Text(told), TableBlock(table)]
    return blocks


def subject_of(sweeps: Sequence[SweepResults]) -> Subject:
    """What the curves of sweeps of one measure share; their names have the sweep where there are several."""
    pairs = [(sweep.name, row.method) for sweep in sweeps for row in sweep.finished]
    names = {(name, method): f"{name} {method}" if len(sweeps) > 1 else method for name, method in pairs}
    headline = sweeps[0].measure[0]
    places = [place for sweep in sweeps for place in published_places(sweep, headline)]
    published = {
        size: [{**place, "removed": place[size]} for place in places if place[size] is not None]
        for size in ("parameters", "macs")
    }
    return Subject(headline, names, published)


def _choices(store: Store, sweeps: Sequence[SweepResults]) -> list[Block]:
    groups = measures(sweeps)
    blocks: list[Block] = []
    for place, members in enumerate(groups.values()):
        offers = [offer for sweep in members for offer in candidates(sweep)]
        bends = knees(offers)
        at = [knee.at for knee in bends if knee.at]
        if len(groups) > 1:
            blocks.append(Heading(", ".join(sweep.name for sweep in members)))
        chart = frontier_chart(offers, frontier(offers), at, subject_of(members))
        blocks += [
            TableBlock(choices_table(offers)),
            Charts(_apart([chart], str(place + 1) if len(groups) > 1 else "")),
            Text("Knees, by Kneedle (Satopaa et al., 2011) on mean validation against parameters removed:"),
            Lines(_knee_lines(bends)),
        ]
    return [*blocks, *_taking(store, sweeps)]


def _knee_lines(bends: Sequence[Knee]) -> list[str]:
    """One line for all curves of a sweep of which the same is to be said."""
    said: dict[tuple[str, str], list[str]] = {}
    for knee in bends:
        place = "" if knee.at is None else f"ratio {knee.at.ratio:g}, "
        said.setdefault((knee.sweep, f"{place}{knee.reason}"), []).append(knee.method)
    return [f"{sweep}, {', '.join(methods)}: {line}" for (sweep, line), methods in said.items()]


def _taking(store: Store, sweeps: Sequence[SweepResults]) -> list[Block]:
    offers = candidates(sweeps[0])
    shown = min(offers, key=lambda offer: offer.drop[0])
    say = (
        f"How to load a model, here {title_of(shown)} of {shown.sweep}, which loses least on validation; any other by "
        "its hash in the table of points. python -m upop_ray.report STORE --max-drop 1.0 (or --max-params, --max-macs, "
        "--max-latency) names one. The last line writes a folder that loads without this package."
    )
    point = shown.taken.hash
    return [Heading("Take a model"), Text(say), Code(f"{load_lines(store, point)}\n\n# {export_command(store, point)}")]


def _kept(store: Store, sweeps: Sequence[SweepResults]) -> list[Block]:
    blocks: list[Block] = []
    for sweep in sweeps:
        if len(sweeps) > 1:
            blocks.append(Heading(sweep.name))
        blocks.append(Charts(_apart([share_chart(_shares(sweep))], sweep.name), wide=True))
        found = courses(store, sweep.finished)
        named: dict[str, Sequence[SiteCourse]] = {
            row.label: found[row.hash] for row in sweep.finished if row.hash in found
        }
        missing = len(sweep.finished) - len(named)
        if named:
            blocks.append(Charts(_apart([layers_chart(named)], sweep.name), wide=True))
        if missing:
            told = (
                f"{missing} points were computed before layers were written down, and are missing from the layer view."
            )
            blocks.append(Text(told))
    return blocks


def _shares(sweep: SweepResults) -> list[Record]:
    """Mean share that each tower and kind keeps, of each method and ratio."""
    result = []
    for offer in candidates(sweep):
        manifests = [row.manifest for row in offer.rows if row.manifest]
        for group in manifests[0]["kept_share"]:
            kept = sum(manifest["kept_share"][group] for manifest in manifests) / len(manifests)
            result.append({"point": f"{offer.method} {offer.ratio:g}", "group": group, "kept": kept})
    return result


def _draws(sweeps: Sequence[SweepResults]) -> list[Block]:
    blocks: list[Block] = []
    for sweep in (sweep for sweep in sweeps if any(row.drawn for row in sweep.finished)):
        told = importances(sweep)
        shares = {each.method: each.shares for each in told if each.shares}
        if len(sweeps) > 1:
            blocks.append(Heading(sweep.name))
        blocks.append(_IMPORTANCE_NOTE)
        if shares:
            blocks.append(Charts(_apart([importance_chart(shares)], sweep.name), wide=True))
        blocks.append(Lines([f"{each.method}: {each.reason}" for each in told if each.reason]))
        blocks.append(Charts(_apart(_slices(sweep), sweep.name)))
        dead = [setting.text() for setting in (*_unread(sweep), *dead_settings(sweep.rows))]
        blocks.append(Lines(dead) if dead else Text("No drawn setting was found to be without effect."))
    return blocks


def _unread(sweep: SweepResults) -> list[DeadSetting]:
    try:
        return unread_settings(parse(sweep.experiment))
    except ConfigError:
        # of a version that had other settings
        return []


_IMPORTANCE_NOTE = Text(
    "Importances are by PED-ANOVA (Watanabe et al., 2023), on validation less the mean of the draws of the same ratio "
    "and seed. Each mark below is one draw."
)


def _slices(sweep: SweepResults) -> list[Chart]:
    drawn = [row for row in sweep.finished if row.drawn]
    settings = list(dict.fromkeys(name for row in drawn for name in row.drawn))
    return [
        slice_chart(
            setting,
            [
                {
                    "value": row.drawn[setting],
                    "score": row.metric("validation"),
                    "ratio": row.ratio,
                    "method": row.method,
                    "seed": row.seed,
                }
                for row in drawn
                if setting in row.drawn
            ],
            rule_of(sweep, setting),
            sweep.measure[0],
        )
        for setting in settings
    ]


def _points(sweeps: Sequence[SweepResults], ledgers: Mapping[str, Ledger]) -> list[Block]:
    warned = [
        f"{sweep.name}, {row.label}: {warning}"
        for sweep in sweeps
        for row in sweep.finished
        for warning in (row.manifest or {}).get("warnings", [])
    ]
    return [
        TableBlock(points_table(sweeps, ledgers), sortable=True),
        _POINTS_NOTE,
        *([Lines(warned)] if warned else []),
    ]


def _latency(store: Store, sweeps: Sequence[SweepResults]) -> list[Block]:
    rows = [row for sweep in sweeps for row in sweep.finished]
    table = latency_table(rows, read_latencies(store, rows))
    return [TableBlock(table)] if table.rows else []


def _cost(sweep: SweepResults, ledger: Ledger) -> list[Block]:
    price = Price.model_validate(sweep.experiment.get("sweep", {}).get("price") or {})
    lines = [f"{sweep.name}: {line}" for line in cost_lines(ledger, price)]
    return [Lines(lines), TableBlock(ledger_table(ledger, price), folded=f"by point of {sweep.name}")]


def _unfinished(sweeps: Sequence[SweepResults]) -> list[Block]:
    table = failures_table(sweeps)
    return [TableBlock(table)] if table.rows else [Text("All points are finished.")]


def _others(sweeps: Sequence[SweepResults]) -> list[Block]:
    table = others_table(sweeps)
    return [_OTHERS_NOTE, TableBlock(table)] if table.rows else []


_OTHERS_NOTE = Text(
    "Points that a sweep of the same name computed before its settings were changed. They are on no curve and in no "
    "table above, but their cost counts; points.csv has them."
)


def _apart(charts: Sequence[Chart], suffix: str) -> list[Chart]:
    """Charts whose files have names of their own."""
    return [replace(chart, name=f"{chart.name}-{suffix}" if suffix else chart.name) for chart in charts]
