"""Captions of images: which column counts, what is drawn, and that the ranks' parts are the global batch."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.texts import write_dataset
from upop_ray.data.captions import CaptionBatches, CaptionSplit, load_captions
from upop_ray.data.images import Preprocessing
from upop_ray.data.once import read_once
from upop_ray.data.order import Cursor
from upop_ray.data.shards import open_dataset
from upop_ray.errors import ConfigError, DataError

PREPROCESSING = Preprocessing(8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def load(folder: Path, *rows: Mapping[str, Any]) -> CaptionSplit:
    return load_captions(write_dataset(folder, {"train": rows}), "train")


def batches(rows: int = 10, batch_size: int = 4) -> CaptionBatches:
    images = torch.randint(0, 256, (rows, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    captions = tuple(tuple(f"{row} {number}" for number in range(3)) for row in range(rows))
    return CaptionBatches(CaptionSplit(images, captions), PREPROCESSING, batch_size, seed=5)


def test_a_label_is_the_only_caption(tmp_path: Path) -> None:
    split = load(tmp_path, {"label": "cat", "captions": ["animal", "pet"]}, {"label": "dog", "captions": ["animal"]})
    assert split.captions == (("cat",), ("dog",)) and split.images.shape == (2, 3, 16, 16)


def test_without_labels_all_captions_count(tmp_path: Path) -> None:
    assert load(tmp_path, {"captions": ["a", "b"]}, {"captions": ["c"]}).captions == (("a", "b"), ("c",))


def test_the_built_in_labels_are_captions() -> None:
    dataset = open_dataset("builtin:emoji")
    split = load_captions(dataset, "val")
    assert [texts[0] for texts in split.captions] == dataset.split("val")["label"].to_pylist()
    assert all(len(texts) == 1 for texts in split.captions)


@pytest.mark.parametrize("row", [{"captions": []}, {"captions": ["a", ""]}, {"label": ""}, {"text": "a"}])
def test_images_without_captions_are_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"split train.*caption"):
        load(tmp_path, row)


def test_every_caption_of_a_row_is_drawn() -> None:
    ours = batches()
    drawn = Counter(
        caption for epoch in range(60) for index in range(2) for caption in ours.batch(Cursor(epoch, index)).captions
    )
    assert set(drawn) == {f"{row} {number}" for row in range(10) for number in range(3)}
    assert min(drawn.values()) > 4


def test_the_parts_of_the_ranks_are_the_global_batch() -> None:
    whole, parts = batches().batch(Cursor(1, 1)), [batches().batch(Cursor(1, 1), rank, 2) for rank in range(2)]
    assert torch.equal(whole.pixel_values, torch.cat([part.pixel_values for part in parts]))
    assert whole.captions == parts[0].captions + parts[1].captions


def test_fewer_rows_than_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        batches(rows=3)


def test_a_split_is_read_once(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, {"train": [{"label": "cat"}], "val": [{"label": "dog"}]})
    first = read_once(load_captions, dataset, "train")
    assert read_once(load_captions, open_dataset(str(tmp_path)), "train") is first
    assert read_once(load_captions, dataset, "val").captions == (("dog",),)
    # other content under the same path is other data
    changed = write_dataset(tmp_path, {"train": [{"label": "bird"}]})
    assert read_once(load_captions, changed, "train").captions == (("bird",),)
