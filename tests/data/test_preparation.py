"""Preparing a data set: what lies in the store afterwards, what a second run does, and what goes wrong."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.data import layouts
from tests.s3 import S3
from upop_ray.data.preparation import Preparation, Settings
from upop_ray.data.shard_making import Job, Record
from upop_ray.data.shards import file_hash, open_dataset
from upop_ray.errors import DataError, StoreError

#: shards of three or four images of 24 x 16, row groups of two
SMALL = Settings(shard_mb=0.003, row_group_mb=0.001)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty cats and twenty dogs to train on, six of each to test."""
    layouts.image_folder(tmp_path / "source", {"train": 20, "test": 6})
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to prepare."""
    return tmp_path / "prepared"


def prepare(source: Path, target: Path | str, settings: Settings = SMALL, mapper: Any = map) -> dict[str, Any]:
    """Prepare the image folder in this process."""
    return Preparation("imagefolder", str(source), str(target), settings).run(mapper)


def made(source: Path, target: Path, settings: Settings = SMALL) -> list[str]:
    """Prepare again; the names of the shards that were not there already."""
    records: list[Record] = []
    Preparation("imagefolder", str(source), str(target), settings).run(map, records.append)
    return sorted(record.entry["path"] for record in records if not record.reused)


def test_the_manifest_says_what_lies_there(source: Path, target: Path) -> None:
    manifest = prepare(source, target)
    assert json.loads((target / "manifest.json").read_text()) == manifest
    assert manifest["rows"] == {"train": 36, "val": 4, "test": 12}
    assert len(manifest["files"]) > 10
    for entry in manifest["files"]:
        content = (target / entry["path"]).read_bytes()
        footer = pq.read_metadata(target / entry["path"])
        assert entry["sha256"] == file_hash(content) and entry["bytes"] == len(content)
        groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        assert entry["row_groups"] == groups and entry["rows"] == sum(groups)
    assert set(manifest["versions"]) == {"python", "upop_ray", "pyarrow", "pillow"}
    card = (target / "README.md").read_text()
    assert manifest["content_hash"] in card and "| test | 12 | " in card and "yours to state" in card


def test_shards_and_row_groups_have_about_the_size_that_was_asked_for(source: Path, target: Path) -> None:
    entries = [entry for entry in prepare(source, target)["files"] if entry["split"] == "train"]
    size = len(layouts.jpeg(0))
    images = sum(entry["rows"] for entry in entries)
    assert len(entries) == round(images * size / (SMALL.shard_mb * 2**20))
    # a row group is closed by the first row that fills it
    full = -(-int(SMALL.row_group_mb * 2**20) // (size + 30))
    assert all(abs(rows - full) <= 1 for entry in entries for rows in entry["row_groups"][:-1])


def test_training_rows_are_mixed_and_the_same_each_time(source: Path, target: Path, tmp_path: Path) -> None:
    first = prepare(source, target)
    names = open_dataset(str(target)).split("train")["class"].to_pylist()
    changes = sum(one != other for one, other in pairwise(names))
    # of 36 rows, half of each class; sorted there would be one change
    assert 10 <= changes <= 26
    assert prepare(source, tmp_path / "again")["content_hash"] == first["content_hash"]


def test_a_limit_takes_rows_of_every_class(source: Path, target: Path) -> None:
    manifest = prepare(source, target, Settings(limit=8))
    assert manifest["rows"] == {"train": 8, "val": 4, "test": 8}
    assert set(open_dataset(str(target)).split("test")["class"].to_pylist()) == {"cat", "dog"}
    assert "Cut to 8 rows of each split" in (target / "README.md").read_text()


def test_a_finished_shard_is_not_made_again(source: Path, target: Path) -> None:
    complete = prepare(source, target)
    assert made(source, target) == []
    (target / "shards" / "train-00002.json").unlink()
    (target / "shards" / "test-00001.parquet").unlink()
    (target / "manifest.json").unlink()
    assert made(source, target) == ["shards/test-00001.parquet", "shards/train-00002.parquet"]
    assert json.loads((target / "manifest.json").read_text()) == complete


def test_an_interrupted_run_leaves_no_data_set_and_goes_on_where_it_stopped(source: Path, target: Path) -> None:
    def stopped(function: Callable[[Job], Record], jobs: Sequence[Job]) -> Iterable[Record]:
        yield from map(function, jobs[:5])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, target, mapper=stopped)
    with pytest.raises(DataError, match=r"manifest.json: missing"):
        open_dataset(str(target))
    total = len(Preparation("imagefolder", str(source), str(target), SMALL).jobs)
    assert len(made(source, target)) == total - 5


def test_mending_that_is_interrupted_leaves_no_manifest_that_vouches_for_other_shards(
    source: Path, target: Path
) -> None:
    lenient = Settings(shard_mb=0.003, row_group_mb=0.001, broken_share=0.1)
    (source / "train" / "cat" / "3.jpg").write_text("no image")
    prepare(source, target, lenient)
    (source / "train" / "cat" / "3.jpg").write_bytes(layouts.jpeg(3))

    def stopped(function: Callable[[Job], Record], jobs: Sequence[Job]) -> Iterable[Record]:
        for record in map(function, jobs):
            yield record
            if not record.reused:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, target, lenient, stopped)
    with pytest.raises(DataError, match=r"manifest.json: missing"):
        open_dataset(str(target))
    assert made(source, target, lenient) == []
    assert sum(open_dataset(str(target)).manifest["rows"].values()) == 52


def test_shards_of_another_plan_are_replaced(source: Path, target: Path) -> None:
    before = prepare(source, target)["files"]
    files = prepare(source, target, Settings(shard_mb=0.006, row_group_mb=0.001))["files"]
    assert len(files) < len(before)
    names = {entry["path"] for entry in files}
    lying = {f"shards/{path.name}" for path in (target / "shards").glob("*.parquet")}
    assert lying == names and len(list((target / "shards").glob("*.json"))) == len(names)
    assert open_dataset(str(target)).split("train").num_rows == 36


def test_broken_images_are_listed_and_left_out_up_to_the_stated_share(source: Path, target: Path) -> None:
    half = layouts.jpeg(3)
    (source / "train" / "cat" / "3.jpg").write_bytes(half[: len(half) // 2])
    (source / "test" / "dog" / "1.jpg").write_text("no image")
    manifest = prepare(source, target, Settings(broken_share=0.04))
    assert sum(manifest["rows"].values()) == 50
    broken = [json.loads(line) for line in (target / "broken.jsonl").read_text().splitlines()]
    assert [entry["file"] for entry in broken] == ["test/dog/1.jpg", "train/cat/3.jpg"]
    assert broken[0]["reason"] == "not an image" and "truncated" in broken[1]["reason"].lower()
    assert "* test/dog/1.jpg: not an image" in (target / "README.md").read_text()


def test_more_broken_images_than_that_are_an_error_and_no_data_set(source: Path, target: Path) -> None:
    for number in range(3):
        (source / "train" / "cat" / f"{number}.jpg").write_text("no image")
    problem = r"3 of 52 rows cannot be used, more than --broken-share 0.04 allows: train/cat/\d.jpg: not an image"
    with pytest.raises(DataError, match=problem):
        prepare(source, target, Settings(broken_share=0.04))
    assert not (target / "manifest.json").exists()


def test_an_image_that_was_mended_is_taken(source: Path, target: Path) -> None:
    lenient = Settings(shard_mb=0.003, row_group_mb=0.001, broken_share=0.1)
    (source / "train" / "cat" / "3.jpg").write_text("no image")
    assert sum(prepare(source, target, lenient)["rows"].values()) == 51
    assert made(source, target, lenient) == []
    (source / "train" / "cat" / "3.jpg").write_bytes(layouts.jpeg(3))
    assert len(made(source, target, lenient)) == 1
    assert sum(open_dataset(str(target)).manifest["rows"].values()) == 52


def test_an_annotation_that_names_a_missing_image_is_an_error_unless_it_may_be(source: Path, tmp_path: Path) -> None:
    layouts.coco_karpathy(tmp_path / "coco")
    (tmp_path / "coco" / "train2014" / "COCO_train2014_000000000005.jpg").unlink()

    def run(share: float) -> dict[str, Any]:
        settings = Settings(broken_share=share, partial=True)
        return Preparation("coco", str(tmp_path / "coco"), str(tmp_path / "to"), settings).run(map)

    with pytest.raises(DataError, match=r"1 of 14 rows .*: train2014/COCO_train2014_000000000005.jpg: missing"):
        run(0.001)
    assert run(0.1)["rows"]["train"] == 9


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the operating system refuse more, as a disk that is full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_fills_up_is_said_in_one_line_and_what_was_written_stays_valid(source: Path, target: Path) -> None:
    small, large = Settings(shard_mb=0.003), Settings(shard_mb=1)
    before = prepare(source, target, small)
    (target / "manifest.json").unlink()
    with files_of_at_most(12_000), pytest.raises(StoreError) as caught:
        prepare(source, target, large)
    message = str(caught.value)
    assert message.startswith(f"{target}/shards/train-00000.parquet: cannot be written: ") and "\n" not in message
    assert not (target / "manifest.json").exists()
    # nothing half-written is left, and the first plan's shards but for the one that was to be replaced are found again
    assert not [name for name in os.listdir(target / "shards") if name.endswith(".tmp")]
    assert made(source, target, small) == ["shards/train-00000.parquet"]
    assert open_dataset(str(target)).content_hash == before["content_hash"]


@pytest.mark.parametrize(
    ("dataset", "layout", "removed", "problem"),
    [
        (
            "coco",
            layouts.coco_karpathy,
            "val2014",
            "no folder val2014; expected train2014/, val2014/, and",
        ),
        ("coco", layouts.coco_karpathy, "dataset_coco.json", "no dataset_coco.json, nor coco_karpathy_train.json"),
        ("flickr30k", layouts.flickr_karpathy, "flickr30k-images", "no folder flickr30k-images; expected"),
        ("vqa_v2", layouts.vqa_official, "v2_mscoco_val2014_annotations.json", "no v2_mscoco_val2014_annotations"),
        ("nlvr2", layouts.nlvr_official, "images/dev", "no folder images/dev or dev; expected"),
        ("nlvr2", layouts.nlvr_official, "data/test1.json", "no test1.json; expected"),
        ("imagenet", layouts.imagenet_folders, "val", "no folder val or .*; expected train/WNID"),
        ("imagenet", layouts.imagenet_tars, "ILSVRC2012_img_val.tar", "no folder val or .*; expected train/WNID"),
        ("imagenet", layouts.imagenet_tars, "ILSVRC2012_devkit_t12.tar.gz", "no ILSVRC2012_devkit_t12.tar.gz or"),
        ("ade20k", layouts.ade20k, "ADEChallengeData2016/annotations", "no folder .*annotations/training; expected"),
        ("ade20k", layouts.ade20k, "ADEChallengeData2016/objectInfo150.txt", r"no .*objectInfo150.txt; expected"),
    ],
)
def test_half_a_data_set_is_said_with_what_was_expected_and_found(
    dataset: str, layout: Callable[[Path], None], removed: str, problem: str, tmp_path: Path
) -> None:
    layout(tmp_path / "half")
    (tmp_path / "half" / removed).rename(tmp_path / "aside")
    with pytest.raises(DataError, match=problem) as caught:
        Preparation(dataset, str(tmp_path / "half"), str(tmp_path / "to"), SMALL)
    assert f"{tmp_path}/half: " in str(caught.value) and "; found " in str(caught.value)
    assert not (tmp_path / "to").exists()


def test_a_wrong_folder_shows_the_first_of_what_lies_there(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "wrong" / f"thing{number:02d}").mkdir(parents=True)
    with pytest.raises(DataError, match=r"found thing00, .*thing07 and 4 more$"):
        Preparation("coco", str(tmp_path / "wrong"), str(tmp_path / "to"), SMALL)
    with pytest.raises(DataError, match=r"nowhere: no such folder; expected train2014/.*; found nothing$"):
        Preparation("coco", str(tmp_path / "nowhere"), str(tmp_path / "to"), SMALL)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"images": [', "dataset_coco.json: not JSON: .*; fetch it again"),
        (b'{"annotations": []}', "dataset_coco.json: must hold a list as 'images'"),
        (b'{"images": [{"filename": "a.jpg"}]}', "dataset_coco.json, entry 0: has no 'split', 'sentences'"),
        (b'{"images": [{"filename": "caf\xe9.jpg"}]}', r"dataset_coco.json: not UTF-8 at byte 29"),
    ],
)
def test_annotations_that_cannot_be_read_are_named(content: bytes, problem: str, tmp_path: Path) -> None:
    layouts.coco_karpathy(tmp_path / "coco")
    (tmp_path / "coco" / "dataset_coco.json").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        Preparation("coco", str(tmp_path / "coco"), str(tmp_path / "to"), SMALL)


def test_a_bucket_gets_what_a_folder_gets(source: Path, target: Path, s3: S3) -> None:
    local, remote = prepare(source, target), prepare(source, s3.uri("prepared"))
    assert remote == local
    opened = open_dataset(s3.uri("prepared"))
    assert opened.split("test").equals(open_dataset(str(target)).split("test"))
    assert made(source, s3.uri("prepared")) == []  # type: ignore[arg-type]


def test_an_unknown_data_set_is_said_with_those_there_are(source: Path, target: Path) -> None:
    with pytest.raises(DataError, match=r"cifar: no converter of that name; there is coco, flickr30k, vqa_v2, nlvr2, "):
        Preparation("cifar", str(source), str(target), SMALL)
