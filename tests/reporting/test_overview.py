"""What TensorBoard says in words, and that its charts find the scalars that there are."""

import re
from pathlib import Path

from tests.reporting.boards import events, finished, scalars
from tests.reporting.results import Made
from upop_ray.reporting.curves import Curves
from upop_ray.reporting.overview import Overview, layout, points_markdown
from upop_ray.store import Store


def test_every_chart_of_curves_finds_its_scalars(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    board = Curves(store, "s")
    board.update([finished(Made("upop", 0.5, seed, 50.0 + seed)) for seed in (0, 1)])
    board.close()
    there = set(scalars(events(store, f"{board.folder}/upop mean", tmp_path / "shown")))
    charts = layout("r_mean", seeds=2)
    multiline, margins, _ = charts.values()
    for _, tags in multiline.values():
        assert [sum(re.search(tag, name) is not None for name in there) for tag in tags] == [1, 1]
    assert {tag for _, tags in margins.values() for tag in tags} <= there and len(margins) == 4
    assert len(layout("r_mean", seeds=1)) == 2


def test_the_table_has_the_dense_model_and_each_point() -> None:
    rows = [
        finished(Made("upop", 0.5, 0, 50.0, 49.0, 1, {"retrain.learning_rate": 0.0125})),
        finished(Made("magnitude", 0.25, 0, 55.0, 54.0)),
    ]
    lines = [line for line in points_markdown(rows).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| **dense** | 2.000 M | 50.000 M | 60.00 | 58.00 |")
    assert lines[3].startswith("| magnitude-0.25-seed0 | 1.600 M, -20% | 40.000 M, -20% | 55.00 | 54.00 | -4.00 |")
    assert lines[4].endswith("| 50.00 | 49.00 | -9.00 | learning_rate=0.0125 |")


def test_a_table_is_written_again_when_a_tenth_is_new_and_at_the_end(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    overview = Overview(store, "s")
    rows = [finished(Made("upop", 0.5, seed, 50.0)) for seed in range(22)]
    for count in (0, 20, 21, 22):
        overview.update(rows[:count])
    overview.update(rows[:21], last=True)
    overview.close()
    tables = events(store, "sweeps/s/tensorboard/summary", tmp_path / "shown").Tensors("points/text_summary")
    assert [event.step for event in tables] == [20, 22, 21]
