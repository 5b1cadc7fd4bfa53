"""The live table against what is counted by hand."""

from rich.console import Console, RenderableType

from tests.reporting.boards import finished
from tests.reporting.results import Made, row
from upop_ray.reporting.ledger import Hours
from upop_ray.reporting.live import hours_line, live_table, state_line, wrong_lines
from upop_ray.reporting.points import PointRow
from upop_ray.reporting.progress import Running, SweepProgress


def sweep() -> tuple[list[PointRow], SweepProgress]:
    """Two finished, one running, one stopped, one failed, one waiting, two not proposed yet: eight."""
    rows = [
        finished(Made("upop", 0.3, 0, 55.0)),
        finished(Made("magnitude", 0.3, 0, 57.0)),
        row(Made("upop", 0.5, 0, None)),
        row(Made("upop", 0.5, 1, None)),
        row(Made("upop", 0.9, 0, None, state="stopped")),
        row(Made("upop", 0.95, 0, None, state="failed", cause="search.ratio: too\nhigh")),
    ]
    running = (Running("upop-0.5-seed0", "search", 40, 100, 1.234, 75.0),)
    notes = ("upop-0.5-seed0: crash 1: killed; new workers take it up",)
    return rows, SweepProgress("running", 1000.0, 8, running, "", notes, Hours(cpu=1.5, gpu=0.5))


def drawn(content: RenderableType, width: int = 110) -> list[str]:
    console = Console(width=width, height=40, soft_wrap=True, force_terminal=False)
    with console.capture() as capture:
        console.print(content, soft_wrap=False)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_states_add_up() -> None:
    rows, progress = sweep()
    expected = "s: 2 of 8 finished, 1 running, 3 waiting, 1 stopped early, 1 failed"
    assert state_line("s", rows, progress, 1010.0) == expected
    assert "nothing heard for 5 min" in state_line("s", rows, progress, 1300.0)
    ended = progress.ended("interrupted", 1300.0)
    line = state_line("s", rows, ended, 9999.0)
    assert line.endswith("interrupted") and "running" not in line and "heard" not in line


def test_hours_to_come_follow_from_points_that_took_100_seconds() -> None:
    rows, progress = sweep()
    # half of the running point, one that waits, two to be proposed: 350 s on two workers of 3 CPUs and a GPU
    expected = (
        "spent 0.5 GPU-hours, 1.5 CPU-hours, about 0.194 GPU-hours, 0.583 CPU-hours to come, 6 min as fast as now"
    )
    assert hours_line(rows, progress) == expected
    assert hours_line([], progress) == "spent 0.5 GPU-hours, 1.5 CPU-hours"


def test_everything_is_in_the_table() -> None:
    rows, progress = sweep()
    lines = drawn(live_table("s", rows, progress, 1010.0))
    text = "\n".join(lines)
    assert any(line.split() == ["upop-0.5-seed0", "search", "40/100", "1.234", "75", "s"] for line in lines)
    assert any(line.split()[-3:] == ["0.3", "57.00", "55.00"] for line in lines)
    assert "failed upop-0.95-seed0: search.ratio: too high" in text and "crash 1: killed" in text
    assert wrong_lines(rows, progress) == [*progress.notes, "failed upop-0.95-seed0: search.ratio: too high"]


def test_a_narrow_terminal_cuts_names_and_keeps_numbers() -> None:
    rows, progress = sweep()
    lines = drawn(live_table("s", rows, progress, 1010.0), width=44)
    assert max(map(len, lines)) <= 44
    assert any(line.split()[1:] == ["search", "40/100", "1.234", "75", "s"] for line in lines)


def test_a_long_sweep_stays_short() -> None:
    rows = [finished(Made("upop", count / 100, 0, 50.0)) for count in range(1, 90)]
    running = tuple(Running(f"upop-{count}") for count in range(50))
    notes = tuple(f"note {count}" for count in range(3))
    progress = SweepProgress("running", 0.0, 500, running, "", notes)
    lines = drawn(live_table("s", rows, progress, 0.0))
    assert len(lines) < 30 and any("and 42 more" in line for line in lines)
