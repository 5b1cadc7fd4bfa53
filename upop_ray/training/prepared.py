"""What a point starts from: dense model, data and task, read once in a process and shared by its points."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from upop_ray.config import Data, Experiment, Model
from upop_ray.data.checkpoints import resolve_checkpoint
from upop_ray.data.order import Shuffle
from upop_ray.data.reading import Reading
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.errors import CheckpointError
from upop_ray.identity import point_hash
from upop_ray.models import MODELS, family
from upop_ray.models.spec import ModelSpec, Source
from upop_ray.tasks import TASKS
from upop_ray.tasks.spec import Task

#: files that decide what a checkpoint computes
_PROCESSOR_FILES = ("tokenizer*", "vocab*", "merges.txt", "spiece.model", "*processor_config.json")
_WEIGHT_FILES = ("*.safetensors", "*.bin", "config.json", *_PROCESSOR_FILES)
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


@dataclass(frozen=True)
class Prepared:
    """An experiment with everything it starts from.

    :param model: the dense model, to be copied before it is changed
    :param hash: content address of the point
    :param dense_hash: content address of the dense model's evaluation
    """

    experiment: Experiment
    spec: ModelSpec
    model: PreTrainedModel
    processor: Any
    dataset: ShardedDataset
    hash: str
    dense_hash: str

    def task(self) -> Task:
        """A new task on the data."""
        return TASKS[self.experiment.task.name](self.experiment, self.dataset, self.processor, self.model)


def prepare(experiment: Experiment) -> Prepared:
    """Load the dense model and open the data.

    :raises CheckpointError: the model cannot be loaded
    :raises DataError: the data cannot be opened
    """
    spec = family(experiment.model.family, experiment.task.name)
    model, processor = load_dense(experiment.model)
    dataset = _dataset(experiment.data)
    address, dense = content_addresses(experiment)
    return Prepared(experiment, spec, model, processor, dataset, address, dense)


def content_addresses(experiment: Experiment) -> tuple[str, str]:
    """Hashes of the point and of the dense model on its data, without loading the model.

    :raises CheckpointError: the checkpoint is missing
    :raises DataError: the data set is missing
    """
    family(experiment.model.family, experiment.task.name)
    data, weights = _dataset(experiment.data).content_hash, weights_hash(experiment.model)
    evaluation = json.dumps([experiment.task.model_dump(mode="json"), experiment.model.image_size])
    dense = hashlib.sha256(f"{data} {weights} {evaluation}".encode()).hexdigest()[:16]
    return point_hash(experiment, data, weights), dense


@lru_cache(maxsize=8)
def weights_hash(model: Model) -> str:
    """Hash of the files of a checkpoint that decide what it computes.

    :raises CheckpointError: no folder or file, and no model of that name that can be fetched
    """
    source = _source(model)
    files = [source.path] if source.path.is_file() else _files(source.path)
    if not any(file.suffix in _WEIGHT_SUFFIXES for file in files):
        raise CheckpointError(f"model.path: {model.path} holds no weights (*.safetensors); give a transformers folder")
    if source.processor is not None:
        files += _files(source.processor, _PROCESSOR_FILES)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} ".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _files(folder: Path, patterns: tuple[str, ...] | None = None) -> list[Path]:
    return sorted({file for pattern in patterns or _WEIGHT_FILES for file in folder.glob(pattern)})


def _source(model: Model) -> Source:
    processor = None if model.processor is None else _folder(resolve_checkpoint(model.processor), "model.processor")
    path = resolve_checkpoint(model.path)
    return Source(Path(path) if Path(path).is_file() else _folder(path, "model.path"), processor, model.image_size)


@lru_cache(maxsize=2)
def load_dense(model: Model) -> tuple[PreTrainedModel, Any]:
    """The dense model and its processor, loaded once in a process.

    :raises CheckpointError: the checkpoint is missing or does not fit
    """
    return MODELS[model.family].load(_source(model))


def _dataset(data: Data) -> ShardedDataset:
    return _opened(data.model_dump_json())


@lru_cache(maxsize=8)
def _opened(settings: str) -> ShardedDataset:
    data = Data.model_validate_json(settings)
    reading = Reading(
        Shuffle(data.lanes, data.buffer),
        None if data.cache is None else Path(data.cache).expanduser(),
        round(data.cache_gb * 10**9),
        round(data.in_memory_mb * 10**6),
    )
    return open_dataset(data.path, reading=reading, columns=data.columns)


def _folder(path: str, field: str) -> Path:
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(path))
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{field}: {path} is no folder, and no model of that name can be fetched ({reason}); "
            "give a transformers folder or a hub name"
        ) from error
