"""Captions of images: which column counts, what is drawn, and that the ranks' parts are the global batch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from tests.datasets import drawing
from tests.tasks.texts import write_dataset
from upop_ray.data.captions import CaptionBatches, CaptionSplit, load_captions
from upop_ray.data.images import Preprocessing
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor, Order
from upop_ray.data.pictures import HeldPictures, Pictures
from upop_ray.data.shards import open_dataset
from upop_ray.data.splits import Nested
from upop_ray.data.views import Drawings
from upop_ray.errors import ConfigError, DataError

PREPROCESSING = Preprocessing(8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def load(folder: Path, *rows: Mapping[str, Any]) -> CaptionSplit:
    return load_captions(write_dataset(folder, {"train": rows}), "train")


def batches(rows: int = 10, batch_size: int = 6) -> CaptionBatches:
    captions = pa.chunked_array([[[f"{row} {number}" for number in range(3)] for row in range(rows)]])
    pictures = HeldPictures([drawing(row) for row in range(rows)], "somewhere")
    split = CaptionSplit(pictures, Nested.of(captions))
    return CaptionBatches(split, Order(len(split), batch_size, seed=5), Drawings(PREPROCESSING))


def test_a_label_is_the_only_caption(tmp_path: Path) -> None:
    split = load(tmp_path, {"label": "cat", "captions": ["animal", "pet"]}, {"label": "dog", "captions": ["animal"]})
    assert list(split.captions) == [["cat"], ["dog"]] and split.pictures.pixels([0, 1]).shape == (2, 3, 16, 16)


def test_without_labels_all_captions_count(tmp_path: Path) -> None:
    split = load(tmp_path, {"captions": ["a", "b"]}, {"captions": ["c"]})
    assert list(split.captions) == [["a", "b"], ["c"]]
    assert len(split) == 3 and split.examples_per_row.tolist() == [2, 1]


def test_the_built_in_labels_are_captions() -> None:
    dataset = open_dataset("builtin:emoji")
    split = load_captions(dataset, "val")
    assert [texts[0] for texts in split.captions] == dataset.split("val")["label"].to_pylist()
    assert all(len(texts) == 1 for texts in split.captions)


@pytest.mark.parametrize("row", [{"captions": []}, {"captions": ["a", ""]}, {"label": ""}, {"text": "a"}])
def test_images_without_captions_are_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"split train.*caption"):
        load(tmp_path, row)


def test_an_epoch_shows_every_caption_once_with_its_image() -> None:
    ours = batches()
    step = ours.order.step(Cursor(1, 2))
    assert ours.batch(Cursor(1, 2)).captions == [f"{example // 3} {example % 3}" for example in step.whole]
    shown = [caption for index in range(5) for caption in ours.batch(Cursor(0, index)).captions]
    assert sorted(shown) == sorted(caption for captions in ours.split.captions for caption in captions)


def test_pixels_are_those_of_the_captions_images() -> None:
    class Rows(Drawings):
        def training(self, pictures: Pictures, rows: np.ndarray, step: Any, places: np.ndarray) -> Tensor:
            return torch.from_numpy(rows)

    ours = batches()
    batch = CaptionBatches(ours.split, ours.order, Rows(PREPROCESSING)).batch(Cursor(2, 1), rank=1, world_size=2)
    assert batch.pixel_values.tolist() == [int(caption.split()[0]) for caption in batch.captions]


def test_the_parts_of_the_ranks_are_the_global_batch() -> None:
    whole, parts = batches().batch(Cursor(1, 1)), [batches().batch(Cursor(1, 1), rank, 2) for rank in range(2)]
    assert torch.equal(whole.pixel_values, torch.cat([part.pixel_values for part in parts]))
    assert whole.captions == parts[0].captions + parts[1].captions


def test_fewer_rows_than_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        batches(rows=1)


def test_a_split_is_read_once(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, {"train": [{"label": "cat"}], "val": [{"label": "dog"}]})
    first = read_once(load_captions, dataset, "train")
    assert read_once(load_captions, open_dataset(str(tmp_path)), "train") is first
    assert read_once(load_captions, dataset, "val").captions.take(np.array([0])) == ["dog"]
    # other content under the same path is other data
    changed = write_dataset(tmp_path, {"train": [{"label": "bird"}]})
    assert read_once(load_captions, changed, "train").captions.take(np.array([0])) == ["bird"]
