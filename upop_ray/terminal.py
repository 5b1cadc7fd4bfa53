"""How entry points speak: one-line errors, exit codes, progress bars."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from upop_ray.errors import UpopError

USER_ERROR = 2
#: columns of tables in a file or pipe, which have no width of their own
_FILE_WIDTH = 160
# no markup: paths and errors may have brackets
console = Console(markup=False, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def split_arguments(first: str | None, rest: Sequence[str]) -> tuple[str | None, list[str]]:
    """The experiment file and the overrides; the file may be left out."""
    if first is not None and "=" in first:
        return None, [first, *rest]
    return first, list(rest)


def guarded(main: Callable[[], int]) -> None:
    """Run an entry point: an error that the user can cure is one line on stderr and exit code 2, never a traceback."""
    try:
        sys.exit(main())
    except UpopError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


class LiveView:
    """Something that is drawn over and over in the last lines of a terminal, while lines printed meanwhile stay above.

    Without a terminal nothing is drawn.

    :param transient: whether it vanishes in the end
    """

    def __init__(self, transient: bool = False) -> None:
        self.is_live = console.is_terminal
        # the terminal's own size counts at each refresh, so that it may change
        self._live = Live(console=console, refresh_per_second=2, transient=transient, vertical_overflow="ellipsis")
        self._said: set[str] = set()

    def __enter__(self) -> "LiveView":
        if self.is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, content: RenderableType) -> None:
        """Draw this from now on."""
        self._live.update(content)

    def say_once(self, line: str) -> None:
        """Print a line that has not been printed before."""
        if line not in self._said:
            self._said.add(line)
            console.print(line)


class PhaseBars:
    """Progress bars of one point, one for each phase: phase, step, loss, ratio, time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._last: dict[str, dict[str, float]] = {}

    def __enter__(self) -> "PhaseBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, phase: str, step: int, steps: int, metrics: dict[str, float]) -> None:
        """Move the bar of ``phase``; without a terminal print a line instead."""
        facts = self._last.setdefault(phase, {})
        facts.update(metrics)
        text = _facts(facts)
        if not console.is_terminal:
            console.print(f"{phase:8} {step}/{steps} {text}")
            return
        if phase not in self._bars:
            self._bars[phase] = self._progress.add_task(phase, total=steps, facts="")
        self._progress.update(self._bars[phase], completed=step, facts=text)


def _facts(metrics: dict[str, float]) -> str:
    shown = {
        "loss": "loss {:.3f}",
        "ratio": "ratio {:.3f}",
        "examples_per_second": "{:.0f} examples/s",
        "waiting_share": "{:.0%} waiting for data",
    }
    parts = [shown[name].format(value) for name, value in metrics.items() if name in shown]
    parts += [f"{name.split('/')[-1]} {value:.1f}" for name, value in metrics.items() if name == "validation/r_mean"]
    return "  ".join(parts)
