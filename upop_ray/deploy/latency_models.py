"""The models to measure: a point of a store, or a folder, and the dense model to compare with."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from upop_ray.data.checkpoints import resolve_checkpoint
from upop_ray.deploy.subject import FAMILIES, Place, find_point, read_config
from upop_ray.errors import CheckpointError
from upop_ray.models import MODELS
from upop_ray.models.spec import ModelSpec, Source

#: ``model_type`` of a dense model that transformers has -> ``model.family``
_DENSE = {"clip": "clip", "siglip": "siglip", "vit": "vit", "deit": "vit"}
#: dense BLIPs share one ``model_type`` and are told apart by ``architectures``
_BLIPS = {
    "BlipForImageTextRetrieval": "blip_retrieval",
    "BlipRetrieval": "blip_retrieval",
    "BlipForConditionalGeneration": "blip_caption",
    "BlipCaption": "blip_caption",
    "BlipForQuestionAnswering": "blip_vqa",
    "BlipVqa": "blip_vqa",
}


@dataclass(frozen=True)
class Target:
    """What is measured.

    :param folder: its files on this machine
    :param place: the point, where it is one
    :param dense: what the point was made of, as ``settings.model`` of its manifest
    """

    folder: Path
    family: str
    place: Place | None = None
    dense: Mapping[str, Any] | None = None


@contextmanager
def target(name: str, store: str) -> Iterator[Target]:
    """The target that a command line names: a hash or the beginning of one, a point's path, or a model folder.

    :param store: address of the store, for a hash
    :raises StoreError: there is no such point, it is not finished, or the beginning fits several
    :raises CheckpointError: it is none of the three, or the folder holds no model
    """
    place = find_point(name, store)
    if place is None:
        folder = Path(name).expanduser()
        yield Target(folder, family_of(folder))
        return
    settings = place.store.read_json(place.paths.manifest)["settings"]["model"]
    with tempfile.TemporaryDirectory(prefix="upop-bench-") as scratch:
        for file in place.store.sizes(place.paths.model):
            with place.store.fetched(file) as local:
                shutil.copyfile(local, Path(scratch) / file.rpartition("/")[2])
        yield Target(Path(scratch), settings["family"], place, settings)


def family_of(folder: Path) -> str:
    """The ``model.family`` that can load a folder, sliced or dense.

    :raises CheckpointError: none can
    """
    config = read_config(folder)
    model_type, architectures = str(config.get("model_type")), config.get("architectures") or []
    names = [FAMILIES.get(model_type), _DENSE.get(model_type), *(_BLIPS.get(str(each)) for each in architectures)]
    found: str | None = next((name for name in names if name is not None), None)
    if found is None:
        raise CheckpointError(f"{folder}: no family of {', '.join(MODELS)} loads its model of type {model_type!r}")
    return found


def load(folder: str, family: str) -> tuple[ModelSpec, PreTrainedModel]:
    """A model of a family from a folder or a built-in name.

    :raises CheckpointError: it is not there, or is another model
    """
    spec, path = MODELS[family], Path(resolve_checkpoint(folder)).expanduser()
    if not path.exists():
        raise CheckpointError(f"{folder}: no such folder; name a transformers folder or builtin:{family}")
    return spec, spec.load(Source(path))[0]
