"""The content address of a point: what decides what it computes, and nothing else (DESIGN, decision 9)."""

import hashlib
import json
from typing import Any

from upop_ray.config import Experiment

#: settings that do not change what a point computes, only where, how fast and how often it is saved
NOT_HASHED = (
    "name",
    "store",
    "store_timeout",
    "keep_checkpoints",
    "sweep",
    "replica",
    "checkpoint_steps",
    "report_steps",
    "published",
)

#: settings of the data that decide in which order they come
_DATA = {"path", "lanes", "buffer"}
#: settings of the search that every method reads, and those that some do
_SEARCH_OF_ALL = {"method", "ratio", "budget", "epochs", "floor", "floors", "align"}
_SEARCH_OF = {
    "upop": {"learning_rate", "interval", "score", "regularisation", "penalty"},
    "unified": {"learning_rate", "score", "regularisation", "penalty"},
    "mask": {"learning_rate", "regularisation", "penalty", "gate_learning_rate"},
    "magnitude": {"regularisation"},
    "magnitude_uniform": set(),
    "random": set(),
}


def point_settings(experiment: Experiment) -> dict[str, Any]:
    """The settings that decide what a point computes; those that it does not read are left out."""
    settings = experiment.model_dump(mode="json", exclude=set(NOT_HASHED))
    read = _SEARCH_OF_ALL | _SEARCH_OF[experiment.search.method]
    settings["search"] = {name: value for name, value in settings["search"].items() if name in read}
    # where these change nothing, a point is what it was before there were any
    for name, nothing in (("floors", {}), ("align", 1)):
        if settings["search"][name] == nothing:
            del settings["search"][name]
    # built-in data are shuffled as a whole
    shown = {"path"} if experiment.data.path.startswith("builtin:") else _DATA
    settings["data"] = {name: value for name, value in settings["data"].items() if name in shown}
    if experiment.distill.weight == 0:
        del settings["distill"]
    if settings["task"].get("loss") == "in_batch":
        del settings["task"]["momentum"]
    return settings


def point_hash(experiment: Experiment, data_hash: str, weights_hash: str) -> str:
    """Content address of a point: settings, data and starting weights; 16 hex digits."""
    settings = point_settings(experiment)
    # the same content elsewhere is the same
    for name in ("path", "processor", "size"):
        del settings["model"][name]
    del settings["data"]["path"]
    content = {"settings": settings, "data": data_hash, "weights": weights_hash}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
