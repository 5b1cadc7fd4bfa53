"""Images with the captions that a model is to write."""

from dataclasses import dataclass

import torch
from torch import Tensor

from upop_ray.data.batches import ShuffledBatches
from upop_ray.data.images import decode_all
from upop_ray.data.order import Cursor
from upop_ray.data.shards import ShardedDataset
from upop_ray.errors import DataError


@dataclass(frozen=True)
class CaptionSplit:
    """A split held in memory.

    :param images: uint8 (N, 3, H, W)
    :param captions: N lists, none of them empty: in training one is drawn anew, in evaluation all are references
    """

    images: Tensor
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.images)


def load_captions(dataset: ShardedDataset, split: str) -> CaptionSplit:
    """Read and decode a split: column `image`, and `label` or (without it) `captions`.

    Where a data set has labels, the label is the only caption: its `captions` say other things of the image as well.

    :raises DataError: see :meth:`ShardedDataset.split`; no such columns; an image without a caption, that cannot be
        decoded, or of another size
    """
    table, place = dataset.split(split), f"{dataset.root}, split {split}"
    column = "label" if "label" in table.column_names else "captions"
    missing = {"image", column} - set(table.column_names)
    if missing:
        raise DataError(
            f"{place}: no column {', '.join(sorted(missing))}; captioning reads image, and label or captions"
        )
    found = table[column].to_pylist()
    captions = tuple((label,) for label in found) if column == "label" else tuple(map(tuple, found))
    for row, texts in enumerate(captions):
        if not texts or not all(texts):
            raise DataError(f"{place}, row {row}: an empty caption, or none; remove the row or write one")
    return CaptionSplit(decode_all(table["image"].to_pylist(), place), captions)


@dataclass(frozen=True)
class CaptionBatch:
    """pixel_values float32 (b, 3, S, S), and b captions."""

    pixel_values: Tensor
    captions: list[str]


@dataclass(frozen=True)
class CaptionBatches(ShuffledBatches[CaptionSplit]):
    """Augmented images, each with one of its captions drawn anew."""

    def batch(self, cursor: Cursor, rank: int = 0, world_size: int = 1) -> CaptionBatch:
        """Return the part of a rank of a global batch; see :meth:`Order.step`."""
        step = self.order.step(cursor, rank, world_size)
        choices = [self.split.captions[row] for row in step.whole]
        captions = [texts[int(step.draws.integers(len(texts)))] for texts in choices][step.part]
        images = self.split.images[torch.from_numpy(step.own)]
        return CaptionBatch(self.preprocessing.augmented(images, step), captions)
