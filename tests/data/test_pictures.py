"""Images by row: decoded when they are asked for, kept where they are small, named where they are broken."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.datasets import drawing, encoded
from upop_ray.data.pictures import HeldPictures, JoinedPictures, Pictures
from upop_ray.errors import DataError

SIZES = ((8, 8), (8, 8), (5, 9), (12, 7))


def held(*sizes: tuple[int, int], first: int = 0, place: str = "somewhere") -> HeldPictures:
    return HeldPictures([drawing(first + number, *size) for number, size in enumerate(sizes)], place)


@pytest.fixture(params=["held", "joined"])
def pictures(request: pytest.FixtureRequest) -> Pictures:
    if request.param == "held":
        return held(*SIZES)
    return JoinedPictures(held(*SIZES[:2]), held(*SIZES[2:], first=2), ("left", "right"))


def test_files_come_as_they_are_in_any_order(pictures: Pictures) -> None:
    assert len(pictures) == 4
    assert pictures.contents([3, 0, 3]) == [drawing(3, 12, 7), drawing(0, 8, 8), drawing(3, 12, 7)]


def test_images_have_their_own_sizes(pictures: Pictures) -> None:
    found = list(pictures.images([2, 1]))
    assert [image.size for image in found] == [(5, 9), (8, 8)] and {image.mode for image in found} == {"RGB"}
    assert np.array_equal(np.asarray(found[0]), np.asarray(Image.open(io.BytesIO(drawing(2, 5, 9)))))


def test_threads_change_nothing_but_the_time(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [3, 0, 2, 1, 0]
    alone = [np.asarray(image.rotate(90)) for image in pictures.images(rows)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    together = pictures.changed(rows, lambda image: np.asarray(image.rotate(90)))
    assert all(map(np.array_equal, together, alone)) and len(together) == len(rows)


def test_pixels_of_one_size_are_stacked() -> None:
    both = JoinedPictures(held((8, 8), (8, 8)), held((8, 8), (8, 8), first=1), ("left", "right"))
    rows = [3, 0, 1, 2]
    found = both.pixels(rows)
    expected = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in both.images(rows)])
    assert torch.equal(found, expected) and torch.equal(found[2], found[3])
    alone = held((8, 8), (8, 8))
    assert torch.equal(alone.pixels(np.array([1])), both.pixels([2]))
    assert torch.equal(alone.pixels([1, 0])[1:], found[1:2])


def test_equal_files_are_decoded_once() -> None:
    pictures = HeldPictures([drawing(row % 3) for row in range(30)], "somewhere")
    assert torch.equal(pictures.pixels([4, 25]), pictures.pixels([1, 1]))
    assert len(pictures._decoded[1]) == 3


def test_other_sizes_are_an_error_that_names_the_cure(pictures: Pictures) -> None:
    with pytest.raises(DataError, match=r"somewhere: images must have one size.*task\.augmentation=photographs"):
        pictures.pixels([0, 3])


def test_a_copy_in_another_process_carries_files_alone() -> None:
    pictures = held(*[(8, 8)] * 50)
    before = len(pickle.dumps(pictures))
    pixels = pictures.pixels(range(50))
    assert len(pickle.dumps(pictures)) == before < 50 * len(drawing(0)) * 1.2
    assert torch.equal(pickle.loads(pickle.dumps(pictures)).pixels(range(50)), pixels)


@pytest.mark.parametrize("row", [1, 3])
def test_what_is_no_image_is_named_with_its_side(row: int) -> None:
    contents = [drawing(number) if number != row else drawing(number)[:60] for number in range(4)]
    left, right = HeldPictures(contents[:2], "pairs"), HeldPictures(contents[2:], "pairs")
    pictures = JoinedPictures(left, right, ("left", "right"))
    with pytest.raises(DataError, match=f"pairs, row 1, {'left' if row < 2 else 'right'}: not a readable image"):
        list(pictures.images([0, row]))


def test_a_row_without_an_image_is_named() -> None:
    with pytest.raises(DataError, match="somewhere, row 1: has no image"):
        HeldPictures(pa.chunked_array([[drawing(0), None]]), "somewhere")


@pytest.mark.parametrize("content", [b"", b"no image", drawing(0)[:-30], drawing(0, 200, 200)[:2000]])
def test_broken_files_are_an_error_of_one_line(content: bytes) -> None:
    with pytest.raises(DataError) as caught:
        list(HeldPictures([content], "somewhere").images([0]))
    assert "\n" not in str(caught.value)


def test_colours_of_any_kind_become_rgb_and_a_camera_is_not_listened_to() -> None:
    ramp = np.arange(0, 240, 2, dtype=np.uint8).reshape(8, 15)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    grey = next(HeldPictures([buffer.getvalue()], "somewhere").images([0]))
    assert np.array_equal(np.asarray(grey), np.stack([ramp] * 3, -1))
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.open(io.BytesIO(encoded(np.stack([ramp] * 3, -1)))).save(buffer, "JPEG", exif=exif)
    assert next(HeldPictures([buffer.getvalue()], "somewhere").images([0])).size == (15, 8)
