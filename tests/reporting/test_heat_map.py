"""Heat maps: which cell has which colour, and when a point's search is drawn."""

from pathlib import Path

from tests.reporting.boards import events
from tests.tiny import tiny_experiment
from upop_ray.reporting.heat_map import heat_map
from upop_ray.reporting.point_board import ALLOCATION, PointBoard
from upop_ray.store import Store

#: the ends of viridis
_LITTLE, _ALL = (68, 1, 84), (253, 231, 37)


def test_cells_are_as_dark_as_little_is_kept() -> None:
    picture = heat_map("a", {"vision.0.mlp": 0.0, "vision.1.mlp": 1.0})
    colours = {colour for _, colour in picture.getcolors(100_000) or []}
    assert {_LITTLE, _ALL} <= colours
    columns = {
        colour: [x for x in range(picture.width) if picture.getpixel((x, picture.height - 12)) == colour]
        for colour in (_LITTLE, _ALL)
    }
    assert max(columns[_LITTLE]) < min(columns[_ALL])


def test_twelve_layers_of_three_towers_fit_into_what_tensorboard_shows() -> None:
    kept = {
        f"{tower}.{layer}.{part}": 0.5
        for tower in ("vision", "text")
        for layer in range(12)
        for part in ("attn", "mlp")
    }
    kept |= {f"text.{layer}.cross": 0.5 for layer in range(12)}
    picture = heat_map("upop-0.5-seed0: % kept after step 100", kept)
    assert picture.width <= 450 and picture.height <= 200


def test_a_search_is_drawn_ten_times_at_most_and_at_its_end(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    store = Store(experiment.store)
    board = PointBoard(store, experiment, "upop-0.5-seed0")
    for step in range(5, 101, 5):
        board.masks(step, 100, {"vision.0.mlp": 1 - step / 200})
    board.finish({"seconds": {"search": 1.0, "retrain": 1.0}})
    board.close()
    shown = events(store, "sweeps/tiny/tensorboard/points/upop-0.5-seed0", tmp_path / "shown").Images(ALLOCATION)
    assert [image.step for image in shown] == [*range(10, 101, 10)]


def test_masks_without_a_search_are_drawn_once(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    board = PointBoard(Store(experiment.store), experiment, "magnitude-0.5-seed0")
    sites, kept = {"vision.0.mlp": {"units": 4}}, {"vision.0.mlp": 1}
    board.finish({"seconds": {"retrain": 1.0}, "sites": sites, "kept_units": kept})
    board.close()
    folder = "sweeps/tiny/tensorboard/points/magnitude-0.5-seed0"
    assert [image.step for image in events(Store(experiment.store), folder, tmp_path / "s").Images(ALLOCATION)] == [0]
