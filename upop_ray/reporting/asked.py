"""What a sweep asks of its points now, and in what a point of the same name differs from it."""

from collections.abc import Mapping
from typing import Any

import yaml

from upop_ray.config import Experiment, at_ratio, parse, replaced
from upop_ray.errors import ConfigError, StoreError
from upop_ray.identity import NOT_HASHED, point_settings
from upop_ray.store import Store, SweepPaths

#: where model and data are: the same content elsewhere is the same point
_PLACES = ("model.path", "model.processor", "model.size", "data.path")
#: differing settings that are named
_SHOWN = 3


class Asked:
    """The settings that a sweep has now. A sweep that is run again with others keeps its name and its older points."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._at: dict[float, Experiment] = {}
        self._places = places(experiment.model_dump(mode="json"))

    def difference(self, cell: tuple[str, float, int], drawn: Mapping[str, Any], found: Mapping[str, Any]) -> str:
        """In what the settings of a point are others than the sweep would give it, for people; empty for a point of it.

        :param cell: its method, ratio and seed
        :param drawn: its dotted drawn settings
        :param found: what it was computed with; where model and data are does not count
        """
        space = sorted(self._experiment.sweep.space)
        if sorted(drawn) != space:
            return f"drawn: {', '.join(sorted(drawn)) or 'nothing'} (the sweep draws {', '.join(space) or 'nothing'})"
        method, ratio, seed = cell
        fixed = {"search.ratio": ratio, "search.method": method, "seed": seed}
        try:
            if ratio not in self._at:
                self._at[ratio] = at_ratio(self._experiment, ratio)
            asked = _flat(point_settings(replaced(self._at[ratio], {**fixed, **drawn})))
        except ConfigError as error:
            return str(error)
        own = _flat(_normal(found))
        names = [n for n in sorted(asked.keys() | own.keys()) if n not in _PLACES and asked.get(n) != own.get(n)]
        told = [f"{name} {own.get(name)} (the sweep has {asked.get(name)})" for name in names[:_SHOWN]]
        return ", ".join(told) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

    def is_here(self, found: Mapping[str, Any]) -> bool:
        """Whether a point was computed with model and data where the sweep has them."""
        return places(found) == self._places


def places(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where model and data of a point are."""
    flat = _flat(settings)
    return tuple(flat.get(name) for name in _PLACES)


def read_asked(store: Store, sweep: str) -> Asked | None:
    """What a sweep asks; None where its experiment is missing, or of a version that had other settings.

    :raises StoreError: it is no mapping in YAML
    """
    if not store.exists(SweepPaths(sweep).experiment):
        return None
    try:
        return Asked(parse(read_experiment(store, sweep)[0]))
    except ConfigError:
        return None


def read_experiment(store: Store, sweep: str) -> tuple[dict[str, Any], str]:
    """The settings of a sweep as its experiment.yaml has them, and its text.

    :raises StoreError: the file is missing, or no mapping in YAML
    """
    path = SweepPaths(sweep).experiment
    content = store.read(path)
    try:
        text = content.decode()
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StoreError(f"{store.path(path)}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise StoreError(f"{store.path(path)}: holds a {type(values).__name__}; an experiment is a mapping of settings")
    return {name: value for name, value in values.items() if value is not None}, text


def _normal(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a point as this version has them, where it can read them."""
    values = {name: value for name, value in found.items() if name not in NOT_HASHED}
    try:
        return point_settings(parse(values))
    except ConfigError:
        return values


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
