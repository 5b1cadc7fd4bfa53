"""The published experiments: schedules against numbers by hand, sizes against the paper's, and the table of them."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from upop_ray import config
from upop_ray.config import BUILTIN_EXPERIMENT, Experiment, at_ratio
from upop_ray.data.converters import CONVERTERS
from upop_ray.distributed.plan import cells
from upop_ray.models import family
from upop_ray.plan.points import point_plan
from upop_ray.plan.subject import Subject, published
from upop_ray.training.retrain import learning_rate

FOLDER = BUILTIN_EXPERIMENT.parent
#: of sizes that are printed with three or four digits, as in tests/models/test_published_sizes.py
TOLERANCE = 0.005


@dataclass(frozen=True)
class Row:
    """A published script, by hand from its options and the size of its data set.

    :param per_epoch: examples // batch
    :param updates: of the masks
    :param rates: learning rate of retraining at the first, the middle and the last step
    """

    name: str
    ratio: float
    per_epoch: int
    search_epochs: int
    retrain_epochs: int
    updates: int
    rates: tuple[float, float, float]


def cosine(rate: float, epoch: int, epochs: int, minimum: float = 0.0) -> float:
    return minimum + (rate - minimum) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def by_epoch(rate: float, epochs: int, minimum: float = 0.0) -> tuple[float, float, float]:
    """The cosine of the first, the middle and the last epoch."""
    first, middle, last = (cosine(rate, epoch, epochs, minimum) for epoch in (0, epochs // 2, epochs - 1))
    return first, middle, last


def polynomial(step: int) -> float:
    """The published Segmenter's: 4e-3 to 1e-5 in 20,160 steps with power 0.9."""
    return 1e-5 + (4e-3 - 1e-5) * (1 - step / 20_160) ** 0.9


# 86,373 // 256 = 337; 566,747 // 256 = 2213; 2,103,433 // 256 = 8216; 145,000 // 256 = 566; 1,281,167 // 4096 = 312;
# 20,210 // 64 = 315. Updates are those at 0, interval, 2 interval, ... and the last step.
SCRIPTS = (
    Row("blip_nlvr2", 0.5, 337, 15, 15, 103, by_epoch(3e-6, 15)),  # 5055 steps: 0 ... 5050, 5054
    Row("blip_nlvr2", 0.667, 337, 20, 20, 136, by_epoch(3e-6, 20)),  # 6740: 0 ... 6700, 6739
    Row("blip_nlvr2", 0.75, 337, 23, 23, 156, by_epoch(3e-6, 23)),  # 7751: 0 ... 7750, which is the last
    Row("blip_nlvr2", 0.8, 337, 24, 24, 163, by_epoch(3e-6, 24)),  # 8088: 0 ... 8050, 8087
    Row("blip_nlvr2", 0.9, 337, 27, 27, 183, by_epoch(3e-6, 27)),  # 9099: 0 ... 9050, 9098
    Row("blip_caption_coco", 0.5, 2213, 5, 5, 112, by_epoch(1e-5, 5)),  # 11,065: 0 ... 11,000, 11,064
    Row("blip_caption_coco", 0.75, 2213, 8, 8, 179, by_epoch(1e-5, 8)),  # 17,704: 0 ... 17,700, 17,703
    Row("blip_vqa_v2", 0.5, 8216, 10, 10, 84, by_epoch(2e-5, 10)),  # 82,160: 0 ... 82,000, 82,159
    Row("blip_vqa_v2", 0.75, 8216, 15, 15, 125, by_epoch(2e-5, 15)),  # 123,240: 0 ... 123,000, 123,239
    Row("blip_retrieval_coco", 0.5, 2213, 6, 6, 68, by_epoch(1e-5, 6)),  # 13,278: 0 ... 13,200, 13,277
    Row("blip_retrieval_coco", 0.75, 2213, 9, 9, 101, by_epoch(1e-5, 9)),  # 19,917: 0 ... 19,800, 19,916
    Row("blip_retrieval_flickr30k", 0.5, 566, 12, 12, 137, by_epoch(1e-5, 12)),  # 6792: 0 ... 6750, 6791
    Row("blip_retrieval_flickr30k", 0.75, 566, 18, 18, 205, by_epoch(1e-5, 18)),  # 10,188: 0 ... 10,150, 10,187
    Row("clip_coco", 0.5, 2213, 6, 6, 68, by_epoch(1e-5, 6)),
    Row("clip_coco", 0.75, 2213, 9, 9, 101, by_epoch(1e-5, 9)),
    Row("clip_flickr30k", 0.5, 566, 12, 12, 137, by_epoch(1e-5, 12)),
    Row("clip_flickr30k", 0.75, 566, 18, 18, 205, by_epoch(1e-5, 18)),
    Row("deit_imagenet", 0.1, 312, 60, 300, 13, by_epoch(8e-4, 300, 1e-5)),  # 18,720 by 1600: 0 ... 17,600, 18,719
    Row("deit_imagenet", 0.2, 312, 60, 300, 20, by_epoch(8e-4, 300, 1e-5)),  # by 1000: 0 ... 18,000, 18,719
    Row("deit_imagenet", 0.3, 312, 60, 300, 25, by_epoch(8e-4, 300, 1e-5)),  # by 800: 0 ... 18,400, 18,719
    Row("deit_imagenet", 0.4, 312, 60, 300, 25, by_epoch(8e-4, 300, 1e-5)),
    Row("deit_imagenet", 0.5, 312, 60, 300, 25, by_epoch(8e-4, 300, 1e-5)),
    # 5040 steps by 500, 400, 300, 200
    Row("segmenter_ade20k", 0.1, 315, 16, 64, 12, (4e-3, polynomial(10_080), polynomial(20_159))),
    Row("segmenter_ade20k", 0.15, 315, 16, 64, 14, (4e-3, polynomial(10_080), polynomial(20_159))),
    Row("segmenter_ade20k", 0.2, 315, 16, 64, 18, (4e-3, polynomial(10_080), polynomial(20_159))),
    Row("segmenter_ade20k", 0.3, 315, 16, 64, 27, (4e-3, polynomial(10_080), polynomial(20_159))),
)
# experiments of one model one after the other
NAMES = tuple(dict.fromkeys(row.name for row in SCRIPTS))
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("builtin_"))


def loaded(name: str) -> Experiment:
    return config.load(FOLDER / f"{name}.yaml")


@lru_cache(maxsize=1)
def full_size(family_name: str, task: str, size: str) -> Subject:
    """The full-size model on the meta device."""
    values = {"model": {"family": family_name, "size": size, "path": "/nowhere"}, "task": {"name": task}}
    experiment, spec = config.parse(values), family(family_name, task)
    return Subject(experiment, spec, published(experiment, spec), "not at hand")


def subject(name: str) -> Subject:
    experiment = loaded(name)
    assert experiment.model.size is not None
    return full_size(experiment.model.family, experiment.task.name, experiment.model.size)


def test_every_file_is_here_with_all_its_ratios() -> None:
    assert sorted(NAMES) == FILES and len(SCRIPTS) == 26
    for name in NAMES:
        assert loaded(name).sweep.ratios == tuple(row.ratio for row in SCRIPTS if row.name == name)


@pytest.mark.parametrize("row", SCRIPTS, ids=lambda row: f"{row.name}-{row.ratio}")
def test_steps_updates_and_rates_are_those_of_the_script(row: Row) -> None:
    experiment = loaded(row.name)
    assert experiment.published is not None
    (cell,) = [cell for cell in cells(experiment) if cell.ratio == row.ratio]
    plan = point_plan(experiment, cell, experiment.published.train_examples)
    assert plan.search_steps == row.per_epoch * row.search_epochs
    assert plan.retrain_steps == row.per_epoch * row.retrain_epochs
    assert plan.updates == row.updates
    retrain = at_ratio(experiment, row.ratio).retrain
    steps = (0, row.per_epoch * (row.retrain_epochs // 2), plan.retrain_steps - 1)
    found = tuple(learning_rate(retrain, step, row.per_epoch, row.retrain_epochs) for step in steps)
    assert found == pytest.approx(row.rates, rel=1e-9)
    assert at_ratio(experiment, row.ratio).search.learning_rate == row.rates[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_full_size_model_is_as_large_as_published(name: str) -> None:
    experiment = loaded(name)
    assert experiment.published is not None
    # accepts the image size of the file, too
    published(experiment, family(experiment.model.family, experiment.task.name))
    size = subject(name).paper_size or subject(name).size
    dense = experiment.published.points[0]
    assert dense.ratio == 0
    assert size.parameters == pytest.approx(dense.parameters, rel=TOLERANCE)
    assert size.macs == pytest.approx(dense.macs, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["deit_imagenet", "segmenter_ade20k"])
def test_the_published_pruned_model_is_what_our_ratio_leaves(name: str) -> None:
    # the paper's weights, 12 to 1, are those of the parameters here, so that the ratio alone tells the size
    experiment = loaded(name)
    assert experiment.published is not None
    pruned = experiment.published.points[1]
    dense = subject(name).paper_size or subject(name).size
    left = dense.parameters - pruned.ratio * subject(name).removable("params")
    assert left == pytest.approx(pruned.parameters, rel=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_the_published_one(name: str) -> None:
    experiment = loaded(name)
    search, replica = experiment.search, experiment.replica
    assert (search.method, search.budget, search.score, search.floor) == ("upop", "units", "signed", 1)
    assert experiment.distill.weight == 0 and experiment.optimizer.gradient_clipping == 0
    assert replica.workers == (4 if name == "segmenter_ade20k" else 8) and replica.gpus_per_worker == 1
    assert experiment.batch_size // replica.workers == {"deit_imagenet": 512, "segmenter_ade20k": 16}.get(name, 32)
    decay = {"segmenter_ade20k": 0.0, "clip_coco": 0.2, "clip_flickr30k": 0.2}.get(name, 0.05)
    assert experiment.optimizer.weight_decay == decay


#: L1 weights of attention and MLP on all GPUs together, and by how many the published code divides them
PENALTIES = {
    "blip_nlvr2": (4.8e-3, 2e-4, 8),
    "blip_caption_coco": (3.2e-2, 1e-3, 8),
    "blip_vqa_v2": (1.44e-2, 5e-4, 8),
    "blip_retrieval_coco": (6.4e-3, 2e-4, 8),
    "blip_retrieval_flickr30k": (6.4e-3, 2e-4, 8),
    "clip_coco": (22 / 15 * 8e-3, 2e-4, 8),
    "clip_flickr30k": (22 / 15 * 8e-3, 2e-4, 8),
    "deit_imagenet": (4.8e-3, 2e-4, 1),
    "segmenter_ade20k": (4.8e-3, 2e-4, 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_penalties_are_the_published_ones(name: str) -> None:
    attention, mlp, gpus = PENALTIES[name]
    penalty = loaded(name).search.penalty
    assert (penalty.attention, penalty.mlp) == pytest.approx((attention / gpus, mlp / gpus), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_is_prepared_where_it_is_looked_for(name: str) -> None:
    experiment = loaded(name)
    assert experiment.published is not None
    command = experiment.published.prepare
    *start, dataset, source, folder, to, path = command.split()
    assert (start, source, folder, to) == (["python", "-m", "upop_ray.data.prepare"], "--source", "FOLDER", "--to")
    assert dataset in CONVERTERS and path == experiment.data.path
    assert command in (FOLDER / f"{name}.yaml").read_text().partition("name:")[0]


def test_scores_of_one_source_lie_in_the_range_of_percent() -> None:
    points = [point for name in NAMES for point in (loaded(name).published or pytest.fail(name)).points]
    assert all(0 < score < 100 for point in points for score in point.scores.values())


def test_the_readme_names_every_file_and_script() -> None:
    text = (FOLDER / "README.md").read_text()
    for name in [path.stem for path in FOLDER.glob("*.yaml")]:
        assert f"`{name}.yaml`" in text
    for row in SCRIPTS:
        assert any(row.name in line and f"| {row.ratio:g} |" in line for line in text.splitlines()), row


def test_files_are_plain_yaml_too() -> None:
    for path in Path(FOLDER).glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["name"] == path.stem
