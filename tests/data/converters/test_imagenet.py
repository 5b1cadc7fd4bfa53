"""ImageNet: the layouts that are in use give the same rows."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.converters.conftest import Convert, rows
from upop_ray.errors import DataError

LAYOUTS = [layouts.imagenet_folders, layouts.imagenet_flat, layouts.imagenet_kaggle, layouts.imagenet_tars]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_official_validation_set_is_the_test(
    layout: Callable[[Path], None], source: Path, convert: Convert
) -> None:
    layout(source)
    made = convert("imagenet")
    assert made.manifest["classes"] == ["n01440764", "n02100735", "n02119789"]
    # line n of the ground truth is of class (n - 1) % 3 + 1, whose wnids are not in the order of their numbers
    assert rows(made, "test") == {
        f"ILSVRC2012_val_{number:08d}": {
            "image": layouts.jpeg(1000 + number),
            "class": layouts.WNIDS[(number - 1) % 3 + 1],
            "image_id": f"ILSVRC2012_val_{number:08d}",
        }
        for number in range(1, 10)
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_percent_of_each_class_rounded_up_is_held_out_to_choose(
    layout: Callable[[Path], None], source: Path, convert: Convert
) -> None:
    layout(source)
    made = convert("imagenet")
    train, val = rows(made, "train"), rows(made, "val")
    assert sorted(row["class"] for row in val.values()) == made.manifest["classes"]
    assert {id: row["image"] for id, row in {**train, **val}.items()} == {
        f"{wnid}_{place}": layouts.jpeg(100 * id + place) for id, wnid in layouts.WNIDS.items() for place in range(6)
    }
    assert len(train) == 15


@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_have_their_names_where_a_file_tells_them(
    layout: Callable[[Path], None], source: Path, convert: Convert
) -> None:
    layout(source)
    manifest = convert("imagenet").manifest
    names = [layouts.WORDS[wnid] for wnid in manifest["classes"]]
    assert manifest.get("class_names") == (None if layout is layouts.imagenet_folders else names)


def test_all_layouts_hold_out_the_same_images(source: Path, convert: Convert) -> None:
    layouts.imagenet_flat(source / "flat")
    layouts.imagenet_tars(source)
    first = rows(convert("imagenet"), "val")
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"):
        (source / name).unlink()
    for folder in (source / "flat").iterdir():
        folder.rename(source / folder.name)
    assert rows(convert("imagenet"), "val") == first


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
@pytest.mark.parametrize("cut", ["half of it", "in the last file", "after the last file"])
def test_a_truncated_tar_file_is_named(name: str, cut: str, source: Path, convert: Convert) -> None:
    layouts.imagenet_tars(source)
    content = (source / name).read_bytes()
    with tarfile.open(source / name) as archive:
        last = archive.getmembers()[-1]
    padded = -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    ends = {"half of it": len(content) // 2, "in the last file": last.offset_data + last.size - 1}
    (source / name).write_bytes(content[: ends.get(cut, last.offset_data + padded)])
    with pytest.raises(DataError, match=rf"{name}.*: .*(cut off|not a whole tar file)"):
        convert("imagenet")


@pytest.mark.parametrize("content", [bytes(512), b"\x55" * 512])
@pytest.mark.parametrize("place", ["in the tar file of a class", "its first header", "between them"])
def test_a_damaged_header_is_not_taken_for_the_end(place: str, content: bytes, source: Path, convert: Convert) -> None:
    layouts.imagenet_tars(source)
    path = source / "ILSVRC2012_img_train.tar"
    with tarfile.open(path) as archive:
        outer = archive.getmembers()
        with tarfile.open(fileobj=archive.extractfile(outer[1])) as inner:
            fourth = inner.getmembers()[3]
    inside = outer[1].offset_data
    at = {"in the tar file of a class": inside + fourth.offset, "its first header": inside}.get(place, outer[2].offset)
    damaged = bytearray(path.read_bytes())
    damaged[at : at + 512] = content
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=rf"ILSVRC2012_img_train.tar.*: damaged at byte {at}, .*; fetch it again"):
        convert("imagenet")


def test_a_ground_truth_of_another_length_is_said(source: Path, convert: Convert) -> None:
    layouts.imagenet_flat(source)
    next((source / "val").iterdir()).unlink()
    with pytest.raises(DataError, match=r"8 validation images and 9 lines in ILSVRC2012_validation_ground_truth.txt"):
        convert("imagenet")
