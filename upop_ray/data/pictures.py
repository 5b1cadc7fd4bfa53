"""The images of a split by row: held in memory as they are stored, or streamed (:mod:`upop_ray.data.streams`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from upop_ray.data.images import opened, require_one_size, stacked
from upop_ray.errors import DataError

Changed = TypeVar("Changed")


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

    def name(self, row: int) -> str:
        """What an error calls the image of a row."""
        return f"{self.place}, row {row}"

    def images(self, rows: Iterable[int]) -> Iterator[Image.Image]:
        """Images in RGB one after the other, each of its own size.

        :raises DataError: one cannot be decoded
        """
        yield from map(self._image, *self._files(rows))

    def changed(self, rows: Iterable[int], change: Callable[[Image.Image], Changed]) -> list[Changed]:
        """What a function makes of each of these images, in as many threads as torch may use.

        Decoding and resizing leave the interpreter to others.

        :raises DataError: one cannot be decoded
        """
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return list(threads.map(lambda row, content: change(self._image(row, content)), *self._files(rows)))

    def pixels(self, rows: Iterable[int]) -> Tensor:
        """Images of one size: uint8 (rows, 3, H, W).

        :raises DataError: one cannot be decoded, or is of another size than the others
        """
        return stacked(list(self.images(rows)), self.place)

    def _files(self, rows: Iterable[int]) -> tuple[list[int], list[bytes]]:
        numbers = [int(row) for row in rows]
        return numbers, self.contents(numbers)

    def _image(self, row: int, content: bytes) -> Image.Image:
        return opened(content, "RGB", self.name(row))


class HeldPictures(Pictures):
    """Images whose files are held in memory; what is small is decoded once and kept."""

    def __init__(self, contents: pa.ChunkedArray | Sequence[bytes], place: str) -> None:
        """Hold image files.

        :param contents: a binary column, or the files themselves
        :raises DataError: a row has none
        """
        self._contents = contents if isinstance(contents, pa.ChunkedArray) else pa.chunked_array([list(contents)])
        self.place = place
        if self._contents.null_count:
            raise DataError(f"{self.name(pc.index(self._contents.is_null(), True).as_py())}: has no image")

    def __len__(self) -> int:
        return len(self._contents)

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        return [self._contents[row].as_py() for row in rows]

    def pixels(self, rows: Iterable[int]) -> Tensor:
        numbers, decoded = self._decoded
        return decoded[numbers[torch.tensor([int(row) for row in rows], dtype=torch.long)]]

    @cached_property
    def _decoded(self) -> tuple[Tensor, Tensor]:
        """The distinct image of each row, int64 (rows,), and all of them, decoded once."""
        first: dict[bytes, int] = {}
        rows = [first.setdefault(content.as_py(), row) for row, content in enumerate(self._contents)]
        distinct, numbers = np.unique(rows, return_inverse=True)
        return torch.from_numpy(numbers), super().pixels(distinct)

    def __getstate__(self) -> dict[str, Any]:
        # another process decodes what it needs itself
        return {name: value for name, value in vars(self).items() if name != "_decoded"}


class JoinedPictures(Pictures):
    """The images of two columns: those of the first are rows 0 to N - 1, those of the second N to 2 N - 1."""

    def __init__(self, first: Pictures, second: Pictures, names: tuple[str, str]) -> None:
        """Join them.

        :param names: of the columns, for errors
        """
        self._sides, self.place, self._names = (first, second), first.place, names

    def __len__(self) -> int:
        return sum(map(len, self._sides))

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        found: list[bytes] = [b""] * len(rows)
        for side, places in zip(self._sides, self._places(rows), strict=True):
            own = side.contents(self._own(rows, places)) if places else []
            for place, content in zip(places, own, strict=True):
                found[place] = content
        return found

    def name(self, row: int) -> str:
        side, own = divmod(row, self._half)
        return f"{self._sides[side].name(own)}, {self._names[side]}"

    def pixels(self, rows: Iterable[int]) -> Tensor:
        rows = [int(row) for row in rows]
        places = self._places(rows)
        parts = [side.pixels(self._own(rows, own)) for side, own in zip(self._sides, places, strict=True) if own]
        require_one_size({tuple(part.shape[1:]) for part in parts}, self.place)
        return torch.cat(parts)[torch.tensor([place for own in places for place in own]).argsort()]

    @property
    def _half(self) -> int:
        return len(self._sides[0])

    def _places(self, rows: Sequence[int]) -> list[list[int]]:
        """Which of the rows are of each side."""
        return [[place for place, row in enumerate(rows) if row // self._half == side] for side in (0, 1)]

    def _own(self, rows: Sequence[int], places: Sequence[int]) -> list[int]:
        return [rows[place] % self._half for place in places]
