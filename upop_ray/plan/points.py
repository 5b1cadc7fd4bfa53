"""The points of a sweep: how many steps each takes, and which of them the store has."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass

from upop_ray.config import Experiment
from upop_ray.data.captions import load_captions
from upop_ray.data.classes import load_classes
from upop_ray.data.image_text import load_image_text
from upop_ray.data.pairs import load_pairs
from upop_ray.data.questions import load_questions
from upop_ray.data.segments import load_segments
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.distributed.plan import Cell, cells, finished, known_members, member_of, point_of
from upop_ray.errors import DataError
from upop_ray.pruning.methods import METHODS
from upop_ray.pruning.schedule import is_update
from upop_ray.store import Store
from upop_ray.training.prepared import prepare

#: what reads the examples of each task
_SPLITS: Mapping[str, Callable[[ShardedDataset, str], Sized]] = {
    "retrieval": load_image_text,
    "retrieval_itm": load_image_text,
    "caption": load_captions,
    "vqa": load_questions,
    "nlvr": load_pairs,
    "classification": load_classes,
    "segmentation": load_segments,
}


@dataclass(frozen=True)
class Examples:
    """Examples of an epoch, and how that is known.

    :param count: None where neither data nor published numbers tell
    :param problem: why the data does not tell
    """

    count: int | None
    known_from: str
    problem: str | None = None


@dataclass(frozen=True)
class PointPlan:
    """Steps of the points of a cell.

    :param updates: how often the search ranks all units
    :param draws: points of the cell: one, or the samples of a space
    :param done: of which the store has a manifest; None where that cannot be told
    """

    method: str
    ratio: float
    seed: int
    search_steps: int
    updates: int
    retrain_steps: int
    draws: int = 1
    done: int | None = None


def examples_of(experiment: Experiment, loaded: bool) -> Examples:
    """Examples of the training split: of the data, or as published where the data is not at hand.

    :param loaded: whether the checkpoint is at hand
    """
    published = experiment.published
    try:
        dataset = open_dataset(experiment.data.path, columns=experiment.data.columns)
    except DataError as error:
        if published is None:
            return Examples(None, "unknown", str(error))
        return Examples(published.train_examples, "published", str(error))
    return Examples(_count(experiment, dataset, loaded), "data")


def steps_per_epoch(experiment: Experiment, examples: int) -> int:
    """Whole batches of a pass over the data, or ``epoch_steps`` where that is less."""
    steps = examples // experiment.batch_size
    return min(experiment.epoch_steps or steps, steps)


def point_plan(experiment: Experiment, cell: Cell, examples: int) -> PointPlan:
    """Steps of a cell's points."""
    own = point_of(experiment, cell, {})
    method, per_epoch = METHODS[cell.method], steps_per_epoch(own, examples)
    search = own.search.epochs * per_epoch if method.searches else 0
    # a method without a search spends the same epochs in all
    retrain = per_epoch * (own.retrain.epochs + (0 if method.searches else own.search.epochs))
    updates = sum(is_update(step, search, own.search.interval) for step in range(search)) if method.progressive else 1
    draws = experiment.sweep.samples if experiment.sweep.space else 1
    return PointPlan(cell.method, cell.ratio, cell.seed, search, updates if search else 0, retrain, draws)


def done_of(experiment: Experiment) -> dict[Cell, int]:
    """How many points of each cell the store has finished.

    :raises UpopError: data, checkpoint or store cannot be read
    """
    store = Store(experiment.store)
    if experiment.sweep.space:
        members = known_members(store, experiment)
    else:
        members = [member_of(experiment, cell) for cell in cells(experiment)]
    counts = dict.fromkeys(cells(experiment), 0)
    for member in members:
        counts[member.cell] += finished(store, member) is not None
    return counts


def _count(experiment: Experiment, dataset: ShardedDataset, loaded: bool) -> int:
    """Examples that training takes in an epoch; without a checkpoint's processor, those that there are."""
    if loaded:
        return prepare(experiment).task().steps_per_epoch() * experiment.batch_size
    return len(_SPLITS[experiment.task.name](dataset, "train"))
