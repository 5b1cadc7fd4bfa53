"""What a page is made of: sections of blocks, filled into the template by Jinja, which escapes every text."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from upop_ray.reporting.charting import Chart
from upop_ray.reporting.facts import Facts

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    :param sort: what it is sorted by, where that is not its text
    :param code: something to be copied
    """

    text: str
    sort: float | None = None
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    :param numbers: columns of numbers
    :param long: columns of text that may be broken
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Collection[str] = ()
    long: Collection[str] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Lines:
    """A list."""

    kind: ClassVar[str] = "list"
    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Something to be copied."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class TableBlock:
    """A table, which readers may sort.

    :param folded: what stands instead of it until it is opened; empty shows it
    """

    kind: ClassVar[str] = "table"
    table: Table
    sortable: bool = False
    folded: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts side by side, or each as wide as the page."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    wide: bool = False


Block = Text | Heading | Lines | Code | TableBlock | Charts


@dataclass(frozen=True)
class Section:
    """A part of the page with a place in its navigation."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    :param facts: what it comes to, in sentences
    """

    title: str
    subtitle: str
    facts: Sequence[Facts]
    sections: Sequence[Section]

    @property
    def charts(self) -> list[Chart]:
        """All charts in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [chart for block in blocks if isinstance(block, Charts) for chart in block.charts]


def html(page: Page) -> str:
    """The page as one file that needs no network: the chart library is in it."""
    import jinja2
    import vl_convert
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    # of a maintained library; "</script" would end the element that it is put into
    code: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its annotation lacks the default
    library = Markup(code.replace("</script", "<\\/script"))
    return environment.from_string(_TEMPLATE.read_text()).render(page=page, library=library)


def cells(values: Iterable[Any]) -> list[Cell]:
    """Plain cells of values."""
    return [value if isinstance(value, Cell) else Cell(str(value)) for value in values]
