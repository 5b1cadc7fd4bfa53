"""Curves in a store: written in place in a folder, uploaded as they grow elsewhere."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.s3_proxy import Proxy
from upop_ray.store import Store
from upop_ray.tracking import TensorBoard, viewer

FOLDER = "sweeps/n/tensorboard/points/a"


def shown(store: Store, folder: Path) -> list[tuple[int, float]]:
    """(step, value) of the scalar `loss` as TensorBoard reads it."""
    for name in store.sizes(FOLDER):
        (folder / Path(name).name).write_bytes(store.read(name))
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")] if "loss" in events.Tags()["scalars"] else []


def test_what_is_flushed_is_shown(store: Store, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    board = TensorBoard(store, FOLDER)
    board.scalars(1, {"loss": 0.5})
    board.flush()
    assert shown(store, tmp_path / "shown") == [(1, 0.5)]
    board.scalars(2, {"loss": 0.25})
    board.close()
    assert shown(store, tmp_path / "shown") == [(1, 0.5), (2, 0.25)]
    assert len(store.sizes(FOLDER)) == 1


def test_what_has_not_grown_or_was_uploaded_just_now_is_not_uploaded(proxy: Proxy, behind_proxy: Store) -> None:
    def puts() -> int:
        return sum(request.startswith("PUT") for request in proxy.requests)

    every_time, seldom = TensorBoard(behind_proxy, FOLDER), TensorBoard(behind_proxy, FOLDER, every=3600)
    for board, expected in ((every_time, [1, 1, 2, 2]), (seldom, [1, 1, 1, 2])):
        before, found = puts(), []
        board.scalars(1, {"loss": 0.5})
        for end in (board.flush, board.flush):
            end()
            found.append(puts() - before)
        board.scalars(2, {"loss": 0.5})
        for end in (board.flush, board.close):
            end()
            found.append(puts() - before)
        assert found == expected


def test_an_outage_delays_curves_and_stops_nothing(proxy: Proxy, behind_proxy: Store, tmp_path: Path) -> None:
    board = TensorBoard(behind_proxy, FOLDER)
    board.scalars(1, {"loss": 0.5})
    proxy.refused = 1.0
    board.flush()
    proxy.refused = 0.0
    assert behind_proxy.sizes(FOLDER) == {}
    board.close()
    assert shown(behind_proxy, tmp_path) == [(1, 0.5)]


def test_the_viewer_sees_new_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    command = viewer(store, "sweeps/n/tensorboard")
    assert command.endswith(f"tensorboard --logdir {store.uri}/sweeps/n/tensorboard")
    if store.is_local:
        assert command.startswith("tensorboard")
        return
    # fsspec reads the variable that the command sets, and no longer keeps listings
    name, _, value = command.partition(" tensorboard ")[0].partition("=")
    config: dict[str, object] = {}
    from fsspec.config import set_conf_env

    set_conf_env(config, {name: value.strip("'")})
    assert config == {"s3": {"use_listings_cache": False}} and name not in os.environ


def test_pictures_texts_and_layouts_are_uploaded_too(store: Store, tmp_path: Path) -> None:
    board = TensorBoard(store, FOLDER)
    board.image("kept", 3, Image.new("RGB", (5, 4), (10, 20, 30)))
    board.text("table", 2, "| a |")
    board.layout({"one": {"two": ("Multiline", ["loss"])}})
    board.close()
    for name in store.sizes(FOLDER):
        (tmp_path / Path(name).name).write_bytes(store.read(name))
    events = EventAccumulator(str(tmp_path)).Reload()
    (picture,) = events.Images("kept")
    assert picture.step == 3
    assert Image.open(io.BytesIO(picture.encoded_image_string)).getpixel((4, 3)) == (10, 20, 30)
    (text,) = events.Tensors("table/text_summary")
    assert (text.step, text.tensor_proto.string_val[0]) == (2, b"| a |")
    assert "custom_scalars__config__" in events.Tags()["tensors"]
