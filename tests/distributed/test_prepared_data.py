"""From a data set as its owners distribute it to a curve: converted into a bucket, streamed from it, swept into it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from tests.data import layouts
from tests.rows import row_values
from tests.s3 import S3, s3
from upop_ray.config import parse
from upop_ray.data.classes import class_names
from upop_ray.data.preparation import Preparation, Settings
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.distributed.controller import run_sweep
from upop_ray.models.segmenter import Segmenter, SegmenterConfig

__all__ = ["s3"]
pytestmark = pytest.mark.slow

SIDE = 32
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module", autouse=True)
def cluster(s3: S3) -> Iterator[None]:
    """After the server, whose address and credentials its workers need."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def classifier(data: ShardedDataset, folder: Path) -> None:
    names = dict(enumerate(class_names(data)))
    config = ViTConfig(
        image_size=SIDE, patch_size=8, id2label=names, label2id={v: k for k, v in names.items()}, **_VISION
    )
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def segmenter(data: ShardedDataset, folder: Path) -> None:
    classes = len(class_names(data))
    torch.manual_seed(0)
    config = SegmenterConfig(image_size=SIDE, patch_size=8, decoder_layers=1, num_labels=classes, **_VISION)
    Segmenter(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def both_splits(folder: Path) -> None:
    layouts.image_folder(folder, {"train": 20})


def captioned_lines(folder: Path) -> None:
    layouts.json_lines(folder, {"train": 20, "val": 6, "test": 6})


@pytest.mark.parametrize(
    ("dataset", "layout", "row", "make_model"),
    [
        ("coco", layouts.coco_karpathy, "blip_retrieval", None),
        ("coco", layouts.coco_blip, "blip_caption", None),
        ("flickr30k", layouts.flickr_karpathy, "clip", None),
        ("vqa_v2", layouts.vqa_official, "blip_vqa", None),
        ("nlvr2", layouts.nlvr_official, "blip_nlvr", None),
        ("imagenet", layouts.imagenet_tars, "vit", classifier),
        ("ade20k", layouts.ade20k, "segmenter", segmenter),
        ("imagefolder", both_splits, "vit", classifier),
        ("jsonl", captioned_lines, "clip", None),
    ],
)
def test_two_points_over_two_epochs(
    dataset: str,
    layout: Callable[[Path], None],
    row: str,
    make_model: Callable[[ShardedDataset, Path], None] | None,
    tmp_path: Path,
    s3: S3,
) -> None:
    layout(tmp_path / "source")
    place = s3.uri(f"{tmp_path.name}/{dataset}")
    settings = Settings(shard_mb=0.01, row_group_mb=0.004, partial=True)
    Preparation(dataset, str(tmp_path / "source"), place, settings).run(map)
    # nothing is kept in memory, so that everything goes through the cache
    changes: dict[str, Any] = {
        "store": s3.uri(f"{tmp_path.name}/results"),
        "data": {"path": place, "in_memory_mb": 0, "cache": str(tmp_path / "cache"), "workers": 1},
        "task": {"augmentation": "photographs"},
        "replica": {"workers": 2, "zero_stage": 2},
        "sweep": {"ratios": [0.3, 0.5], "methods": ["upop"], "seeds": [0]},
        "epoch_steps": 0,
    }
    if make_model is not None:
        make_model(open_dataset(place), tmp_path / "model")
        changes["model"] = {"path": str(tmp_path / "model")}
    result = run_sweep(parse(row_values(row, tmp_path, **changes)))
    assert result.exit_code == 0, [found.cause for found in result.rows]
    manifests = [found.manifest for found in result.rows]
    assert [manifest["budget"]["asked"] for manifest in manifests if manifest] == [0.3, 0.5]
    for manifest in manifests:
        assert manifest is not None
        assert manifest["budget"]["achieved"] == pytest.approx(manifest["budget"]["asked"], abs=0.005)
        assert all(torch.isfinite(torch.tensor(value)) for value in manifest["metrics"]["test"].values())
    assert any((tmp_path / "cache").rglob("*")), "nothing was fetched from the bucket"
