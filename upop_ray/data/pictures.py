"""The images of a split by row: held in memory as they are stored, or streamed (:mod:`upop_ray.data.streams`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from upop_ray.data.images import decode, decode_all


class Pictures(ABC):
    """Encoded images of a split, decoded when they are asked for.

    :ivar place: names the split in errors
    """

    place: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def contents(self, rows: Sequence[int]) -> list[bytes]:
        """The image files of these rows, in their order.

        :raises DataError: a shard cannot be read
        """

    def image(self, row: int) -> Image.Image:
        """One image in RGB.

        :raises DataError: it cannot be decoded
        """
        return self.images([row])[0]

    def images(self, rows: Sequence[int]) -> list[Image.Image]:
        """Images in RGB, each of its own size.

        :raises DataError: one cannot be decoded
        """
        pairs = zip(rows, self.contents(rows), strict=True)
        return [Image.fromarray(decode(content, "RGB", f"{self.place}, row {row}")) for row, content in pairs]

    def pixels(self, rows: Iterable[int]) -> Tensor:
        """Images of one size: uint8 (rows, 3, H, W).

        :raises DataError: one cannot be decoded, or is of another size than the others
        """
        return decode_all(self.contents(list(rows)), self.place)


class HeldPictures(Pictures):
    """Images whose files are held in memory; what is small is decoded once and kept."""

    def __init__(self, contents: Sequence[bytes], place: str) -> None:
        self._contents, self.place = tuple(contents), place

    def __len__(self) -> int:
        return len(self._contents)

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        return [self._contents[row] for row in rows]

    def pixels(self, rows: Iterable[int]) -> Tensor:
        return self._pixels[torch.tensor(list(rows), dtype=torch.long)]

    @cached_property
    def _pixels(self) -> Tensor:
        return decode_all(self._contents, self.place)
