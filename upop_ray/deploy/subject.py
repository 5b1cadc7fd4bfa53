"""What is exported: a point of a store, or the folder of a sliced model."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from upop_ray.errors import CheckpointError, StoreError
from upop_ray.models import MODELS
from upop_ray.models.spec import ModelSpec, Source
from upop_ray.store import PointPaths, Store

#: ``model_type`` of a sliced model, or of a dense one that transformers lacks -> family
FAMILIES: Mapping[str, str] = {
    "upop_clip": "clip",
    "upop_siglip": "siglip",
    "upop_vit": "vit",
    "upop_deit": "vit",
    "upop_segmenter": "segmenter",
    "upop_segmenter_dense": "segmenter",
    "upop_blip_retrieval": "blip_retrieval",
    "upop_blip_caption": "blip_caption",
    "upop_blip_vqa": "blip_vqa",
    "upop_blip_nlvr": "blip_nlvr",
    "upop_blip_nlvr_dense": "blip_nlvr",
}
#: how each ``model_type`` of this package begins
_OWN = "upop_"
_POINT = re.compile(r"((?P<store>.+)/)?points/(?P<hash>[0-9a-f]+)(/model)?/?")
_HASH = re.compile(r"[0-9a-f]{1,16}")
_SHOWN = 5
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Place:
    """Where a point lies: a store that can be reached, and its whole hash."""

    store: Store
    hash: str

    @property
    def paths(self) -> PointPaths:
        return PointPaths(self.hash)


def find_point(point: str, store: str) -> Place | None:
    """The point that a command line names: a hash or the beginning of one, or a path ``STORE/points/HASH``.

    :param store: address of the store, for a hash
    :returns: None where ``point`` is another folder
    :raises StoreError: there is no such point, it is not finished, or the beginning fits several
    :raises CheckpointError: it is none of the three
    """
    found = _POINT.fullmatch(point)
    if found:
        place = Place(Store(found["store"] or ".", _TIMEOUT), found["hash"])
    elif Path(point).expanduser().is_dir():
        return None
    elif _HASH.fullmatch(point):
        place = _by_hash(point, Store(store, _TIMEOUT))
    else:
        raise CheckpointError(
            f"{point}: is no folder and no hash; give the hash of a point with --store STORE, STORE/points/HASH, "
            "or a model folder"
        )
    if not place.store.exists(place.paths.manifest):
        raise StoreError(f"{place.store.path(place.paths.root)}: is no finished point (it has no manifest.json)")
    return place


def _by_hash(prefix: str, store: Store) -> Place:
    fitting = [name for name in store.list("points") if name.startswith(prefix)]
    if not fitting:
        raise StoreError(f"{store.uri}: holds no point {prefix!r}; name the store that does with --store")
    if len(fitting) > 1:
        more = ", ..." if len(fitting) > _SHOWN else ""
        raise StoreError(
            f"{store.uri}: {prefix!r} begins {len(fitting)} points, {', '.join(fitting[:_SHOWN])}{more}; "
            "give more of the hash"
        )
    return Place(store, fitting[0])


@dataclass(frozen=True)
class Subject:
    """A model to export.

    :param folder: its files on this machine
    :param place: None for a folder that belongs to no point
    :param manifest: of the point
    """

    family: str
    folder: Path
    model: PreTrainedModel
    processor: Any
    place: Place | None
    manifest: Mapping[str, Any] | None

    @property
    def spec(self) -> ModelSpec:
        return MODELS[self.family]


def open_subject(point: str, store: str, scratch: Path) -> Subject:
    """Load what ``point`` names.

    :param scratch: an empty folder, for what comes out of a store
    :raises StoreError: see :func:`find_point`
    :raises CheckpointError: as there, or the folder holds no sliced model
    """
    place = find_point(point, store)
    if place is None:
        folder, manifest = Path(point).expanduser(), None
    else:
        folder, manifest = scratch, place.store.read_json(place.paths.manifest)
        for name in place.store.sizes(place.paths.model):
            with place.store.fetched(name) as local:
                shutil.copyfile(local, folder / name.rpartition("/")[2])
    family = _family_of(folder)
    model, processor = MODELS[family].load(Source(folder))
    return Subject(family, folder, model, processor, place, manifest)


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder.

    :raises CheckpointError: there is none
    """
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}/config.json: missing or not readable, so this is no model folder") from error


def _family_of(folder: Path) -> str:
    model_type = str(read_config(folder).get("model_type"))
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    problem, cure = "which transformers loads as it is", "give the folder model/ of a point"
    if model_type.startswith(_OWN):
        problem, cure = "which this version of upop_ray does not export", "use the version that made it"
    raise CheckpointError(f"{folder}: holds a model of type {model_type!r}, {problem}; {cure}")
