from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from tests.datasets import drawing, write_dataset
from upop_ray.data import augment
from upop_ray.data.image_text import (
    DrawnCaptions,
    ImageTextBatch,
    ImageTextBatches,
    ImageTextSplit,
    draw_caption,
    evaluation_pairs,
    load_image_text,
)
from upop_ray.data.images import Preprocessing
from upop_ray.data.order import Cursor, Order, Rows
from upop_ray.data.pictures import HeldPictures, Pictures
from upop_ray.data.shards import open_dataset
from upop_ray.data.splits import Nested
from upop_ray.data.views import BlipPhotographs, Drawings, Views
from upop_ray.errors import ConfigError, DataError

ROWS, SIZE, LENGTH = 22, 8, 6
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
FIELDS = ("pixel_values", "input_ids", "attention_mask", "identity")


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in enumerate(texts):
        codes = torch.tensor(list(text.encode()[:LENGTH]))
        ids[row, : len(codes)] = codes
    return ids, (ids > 0).long()


def make_split(rows: int = ROWS, captions: int = 0) -> ImageTextSplit:
    """Images of emoji-like rows: names and keywords of each, and perhaps fixed captions."""
    labels = pa.chunked_array([[f"{row:02d}" for row in range(rows)]])
    tags = pa.chunked_array([[["a", "b", "c", "d"][: row % 5] for row in range(rows)]])
    return ImageTextSplit(
        pictures=HeldPictures([drawing(row, SIZE, SIZE) for row in range(rows)], "somewhere, split train"),
        identity=torch.arange(rows) // 2,
        shown=DrawnCaptions(labels, Nested.of(tags)),
        captions=Nested.of(pa.chunked_array([written(rows, captions)], pa.list_(pa.string()))),
    )


def written(rows: int, captions: int) -> list[list[str]]:
    return [[f"{row} {number}" for number in range(captions)] for row in range(rows)]


def make_batches(split: ImageTextSplit | None = None, seed: int = 3, views: Views | None = None) -> ImageTextBatches:
    split = split or make_split()
    return ImageTextBatches(split, Order(len(split), 8, seed), views or Drawings(PREPROCESSING), tokenize)


class Unchanged(Drawings):
    """Training sees what evaluation sees."""

    def training(self, pictures: Pictures, rows: np.ndarray, step: Rows, places: np.ndarray) -> Tensor:
        return self.evaluation(pictures, rows)


PLAIN = Unchanged(PREPROCESSING)


@pytest.fixture
def batches() -> ImageTextBatches:
    return make_batches()


def equal(one: ImageTextBatch, other: ImageTextBatch) -> bool:
    return all(torch.equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


def test_shapes_and_types(batches: ImageTextBatches) -> None:
    batch = batches.batch(Cursor(0, 0))
    assert batch.pixel_values.shape == (8, 3, SIZE, SIZE) and batch.pixel_values.dtype == torch.float32
    assert batch.input_ids.shape == batch.attention_mask.shape == (8, LENGTH)
    assert batch.identity.shape == (8,) and batch.identity.dtype == torch.int64


@pytest.mark.parametrize("views", [Drawings(PREPROCESSING), BlipPhotographs(PREPROCESSING)])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_parts_of_the_ranks_are_the_global_batch(views: Views, world_size: int) -> None:
    batches = make_batches(views=views)
    whole = batches.batch(Cursor(1, 1))
    parts = [batches.batch(Cursor(1, 1), rank, world_size) for rank in range(world_size)]
    joined = ImageTextBatch(*(torch.cat([getattr(part, field) for part in parts]) for field in FIELDS))
    assert equal(whole, joined)


def test_a_batch_depends_on_its_place_and_the_seed_alone(batches: ImageTextBatches) -> None:
    batches.batch(Cursor(0, 0))
    assert equal(batches.batch(Cursor(2, 1)), make_batches().batch(Cursor(2, 1)))
    assert not equal(make_batches(seed=4).batch(Cursor(2, 1)), batches.batch(Cursor(2, 1)))


def test_an_epoch_shows_a_row_at_most_once_and_drops_the_incomplete_batch() -> None:
    plain = make_batches(views=PLAIN)
    assert len(plain) == 2
    seen = torch.cat([plain.batch(Cursor(0, index)).pixel_values for index in range(len(plain))])
    assert len(torch.unique(seen.flatten(1), dim=0)) == 16


def test_a_row_gets_other_pixels_in_another_epoch() -> None:
    batches = make_batches(make_split(8), seed=0)
    first, second = (batches.batch(Cursor(epoch)).pixel_values.flatten(1).sum(1).sort().values for epoch in (0, 1))
    assert not torch.allclose(first, second, atol=1e-3)


def test_images_keep_their_captions_and_concepts() -> None:
    split = make_split()
    batch = make_batches(split, views=PLAIN).batch(Cursor(0, 1))
    prepared = PLAIN.evaluation(split.pictures, range(ROWS))
    for pixels, ids, identity in zip(batch.pixel_values, batch.input_ids, batch.identity, strict=True):
        row = int((prepared == pixels).flatten(1).all(1).nonzero())
        assert identity == split.identity[row]
        text = bytes(ids[ids > 0].tolist()).decode()
        assert text.startswith(f"{row:02d}") or set(text) <= set("abcd, ")


def test_an_epoch_passes_over_every_written_caption_with_its_image(tmp_path: Path) -> None:
    counts = [5, 1, 2, 5, 3]
    rows = [
        {"image": drawing(row, SIZE + row, SIZE), "image_id": f"b{row // 2}", "captions": written(5, counts[row])[row]}
        for row in range(5)
    ]
    split = load_image_text(write_dataset(tmp_path, {"train": rows}), "train")
    assert len(split) == 16 and split.examples_per_row is not None and split.examples_per_row.tolist() == counts
    batches = ImageTextBatches(split, Order(len(split), 4, 0), BlipPhotographs(PREPROCESSING), tokenize)
    seen = [batches.batch(Cursor(3, index)) for index in range(4)]
    texts = [bytes(ids[ids > 0].tolist()).decode() for batch in seen for ids in batch.input_ids]
    assert sorted(texts) == sorted(text for row in rows for text in row["captions"])
    # images of one id are positives of each other's captions
    identities = torch.cat([batch.identity for batch in seen]).tolist()
    assert identities == [int(text.split()[0]) // 2 for text in texts]


@pytest.mark.parametrize("captions", [[], ["a", ""], ["a", None], None])
def test_an_image_without_a_caption_is_named(tmp_path: Path, captions: list[str] | None) -> None:
    rows = [{"image": drawing(0), "image_id": "0", "captions": ["a"]}]
    rows.append({"image": drawing(1), "image_id": "1", "captions": captions})
    with pytest.raises(DataError, match=r"split train, row 1: (an empty caption, or none|has no captions)"):
        load_image_text(write_dataset(tmp_path, {"train": rows}), "train")


def test_a_batch_that_the_workers_cannot_share_is_refused(batches: ImageTextBatches) -> None:
    with pytest.raises(ConfigError, match="batch_size: 8 cannot be divided by 3 workers"):
        batches.batch(Cursor(0, 0), rank=0, world_size=3)


def test_a_batch_after_the_last_is_an_error(batches: ImageTextBatches) -> None:
    with pytest.raises(IndexError, match="batch 2 of an epoch of 2"):
        batches.batch(Cursor(0, 2))


def test_the_three_kinds_of_caption_are_equally_likely() -> None:
    draws = np.random.default_rng(0)
    captions = [draw_caption("cat", ("a", "b", "c", "d"), draws) for _ in range(3000)]
    alone = sum(caption == "cat" for caption in captions)
    both = sum(caption.startswith("cat, ") for caption in captions)
    assert alone == pytest.approx(1000, abs=100) and both == pytest.approx(1000, abs=100)
    assert {len(caption.split(", ")) for caption in captions if not caption.startswith("cat")} == {1, 2, 3}


def test_without_tags_the_caption_is_the_label() -> None:
    assert {draw_caption("cat", (), np.random.default_rng(seed)) for seed in range(20)} == {"cat"}


@pytest.mark.parametrize("stored", [64, 96])
def test_preprocessing_is_that_of_the_clip_image_processor(stored: int) -> None:
    size = {"height": 64, "width": 64}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=size)
    gradient = torch.linspace(0, 255, stored).round().to(torch.uint8)
    image = torch.stack(
        [
            gradient.expand(stored, stored),
            gradient[:, None].expand(stored, stored),
            gradient.flip(0).expand(stored, stored),
        ]
    )
    expected = processor(Image.fromarray(image.permute(1, 2, 0).numpy()), return_tensors="pt")["pixel_values"]
    ours = Preprocessing(64, tuple(processor.image_mean), tuple(processor.image_std)).prepare(image[None])
    # a resized image is rounded to whole levels by the processor only
    torch.testing.assert_close(ours, expected, atol=1e-6 if stored == 64 else 0.02, rtol=0)


def test_evaluation_pairs_join_captions_with_their_images() -> None:
    split = make_split(5, captions=3)
    pairs = evaluation_pairs(split, tokenize, Drawings(PREPROCESSING))
    assert pairs.caption_image.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4] and len(pairs) == 5
    assert bytes(pairs.input_ids[7][:3].tolist()) == b"2 1"
    assert torch.equal(torch.cat([ids for ids, _ in pairs.text_batches(4)]), pairs.input_ids)
    assert torch.equal(pairs.images(range(2, 4)), PREPROCESSING.prepare(split.pictures.pixels([2, 3])))


def test_the_training_split_has_no_pairs_to_evaluate() -> None:
    with pytest.raises(DataError, match=r"split train: an image without fixed captions.* use an evaluation split"):
        evaluation_pairs(make_split(), tokenize, Drawings(PREPROCESSING))


def test_the_shipped_data_loads() -> None:
    dataset = open_dataset("builtin:emoji")
    split = load_image_text(dataset, "val")
    images = split.pictures.pixels(range(len(split)))
    assert images.shape == (dataset.manifest["rows"]["val"], 3, 64, 64)
    assert len(set(split.identity.tolist())) == dataset.manifest["concepts"]["val"]
    # emoji stand on white
    assert (images[:, :, 0, 0] == 255).all(1).float().mean() > 0.6


def changes(**other: Tensor) -> augment.Changes:
    identity = {"theta": torch.eye(2, 3)[None], "colour": torch.ones(3, 1, 1, 1, 1)}
    return augment.Changes(**(identity | other))


def test_no_change_leaves_an_image_as_it_is() -> None:
    images = make_split().pictures.pixels([0])
    torch.testing.assert_close(augment.apply(images, changes(), SIZE), images / 255, atol=1e-5, rtol=0)


def test_what_moves_in_from_outside_is_white() -> None:
    black = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    half_a_side = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    moved = augment.apply(black, changes(theta=half_a_side), SIZE)
    assert (moved[..., : SIZE // 2] == 0).all() and (moved[..., SIZE // 2 :] == 1).all()


def test_colours_change_as_asked() -> None:
    image = torch.tensor([200, 100, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    darker = augment.apply(image, changes(colour=torch.tensor([0.5, 1, 1]).view(3, 1, 1, 1, 1)), SIZE)
    torch.testing.assert_close(darker[0, :, 0, 0], torch.tensor([100, 50, 0]) / 255)
    faded = augment.apply(image, changes(colour=torch.tensor([1.0, 1, 0]).view(3, 1, 1, 1, 1)), SIZE)
    torch.testing.assert_close(faded[0, :, 0, 0], torch.full((3,), (0.299 * 200 + 0.587 * 100) / 255))


def test_nothing_is_ever_flipped() -> None:
    drawn = augment.draw(1000, np.random.default_rng(0))
    assert (torch.linalg.det(drawn.theta[:, :, :2]) > 0).all()
    # no rotation beyond 15 degrees: the sine of the angle over its cosine
    assert (drawn.theta[:, 1, 0] / drawn.theta[:, 0, 0]).abs().max() < np.tan(np.pi / 12) + 1e-6
