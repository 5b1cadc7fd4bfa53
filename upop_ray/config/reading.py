"""From YAML and overrides to a validated experiment."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from upop_ray.config.base import Part
from upop_ray.config.experiment import Experiment
from upop_ray.errors import ConfigError
from upop_ray.problems import first_problem

_PACKAGE = Path(__file__).parent.parent
#: beside the package in a checkout, inside it when installed
_EXPERIMENTS = (_PACKAGE.parent / "experiments", _PACKAGE / "experiments")
#: groups of settings that may differ by ratio: what is trained and how, not on what or where
_BY_RATIO = ("search", "retrain", "optimizer", "task", "distill")
BUILTIN_EXPERIMENT = next((f for f in _EXPERIMENTS if f.is_dir()), _EXPERIMENTS[0]) / "builtin_clip.yaml"


def load(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and apply overrides.

    :param path: a YAML file; None is the built-in experiment
    :param overrides: ``a.b=c``, the value read as YAML
    :raises ConfigError: with the field, the value and the cure
    """
    # before anything of them is shown in another error
    _refuse_credentials("experiment", str(path))
    values = _read_yaml(Path(path) if path is not None else BUILTIN_EXPERIMENT)
    for override in overrides:
        field, separator, text = override.partition("=")
        _refuse_credentials(field if separator else "experiment", override)
        if not separator or not field:
            raise ConfigError(override, "is not an override", "write setting=value, for example search.ratio=0.5")
        value = _parse_value(field, text)
        set_field(values, field, value)
        _count_for_every_ratio(values, field, value)
    return parse(values)


def parse(values: Mapping[str, Any]) -> Experiment:
    """Validate plain values into an experiment.

    :raises ConfigError: names the first wrong field
    """
    _refuse_credentials("", values)
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise first_problem(error, Experiment) from error
    for ratio in experiment.sweep.by_ratio:
        at_ratio(experiment, ratio)
    return experiment


def at_ratio(experiment: Experiment, ratio: float) -> Experiment:
    """The experiment of the points of one ratio, with what ``sweep.by_ratio`` says of it.

    :raises ConfigError: it says something that is no setting of training, or no value of it
    """
    own = experiment.sweep.by_ratio.get(ratio, {})
    for field, value in own.items():
        if field.partition(".")[0] not in _BY_RATIO or field in ("search.ratio", "search.method"):
            known = ", ".join(_BY_RATIO)
            raise ConfigError(f"sweep.by_ratio.{ratio:g}.{field}", "cannot differ by ratio", f"use settings of {known}")
        _refuse_group(experiment, f"sweep.by_ratio.{ratio:g}.", field, value)
    return replaced(experiment, {**own, "search.ratio": ratio, "sweep.by_ratio": {}})


def replaced(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """A copy with dotted settings replaced, validated again."""
    values = experiment.model_dump(mode="json")
    for field, value in changes.items():
        set_field(values, field, value)
    return parse(values)


def set_field(values: dict[str, Any], field: str, value: Any) -> None:
    """Set the dotted ``field`` inside nested dicts.

    :raises ConfigError: the path goes through something that is not a group of settings
    """
    *groups, last = field.split(".")
    for depth, group in enumerate(groups):
        inner = values.setdefault(group, {})
        if inner is None:
            inner = values[group] = {}
        if not isinstance(inner, dict):
            parent = ".".join(groups[: depth + 1])
            raise ConfigError(field, f"{parent} is a value, not a group of settings", f"set {parent} itself")
        values = inner
    values[last] = value


def _refuse_group(experiment: Experiment, place: str, field: str, value: Any) -> None:
    """Make sure that no group of settings is replaced as a whole, which would silently reset what it does not name."""
    group: Any = experiment
    for name in field.split("."):
        group = getattr(group, name, None)
    if isinstance(group, Part) and isinstance(value, Mapping):
        cure = "; ".join(f"write {field}.{name}: {inner}" for name, inner in list(value.items())[:1])
        raise ConfigError(f"{place}{field}", "is a group of settings, not one", cure or "leave it out")


def _count_for_every_ratio(values: Mapping[str, Any], field: str, value: Any) -> None:
    """Let a setting of the command line win over ``sweep.by_ratio``, also where that sets what the setting is in."""
    sweep = values.get("sweep")
    by_ratio = sweep.get("by_ratio") if isinstance(sweep, dict) else None
    for settings in by_ratio.values() if isinstance(by_ratio, dict) else ():
        for name in list(settings) if isinstance(settings, dict) else ():
            if name == field or name.startswith(f"{field}."):
                del settings[name]
            elif field.startswith(f"{name}.") and isinstance(settings[name], dict):
                set_field(settings[name], field.removeprefix(f"{name}."), value)


#: KEY:SECRET@ or TOKEN@ before the host or bucket. A secret may have slashes, which only a colon before them tells from
#: a path; where there are ports, the colon may be that of a port
_CREDENTIALS = re.compile(
    r"\w://(?:[^/\s]*@|[^/:@\s]*:(?!\d{1,5}/)[^@\s]*@)|\b(?:s3a?|gs|gcs|az|abfs)://[^/:@\s]*:[^@\s]*@"
)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number; YAML 1.1 reads it as text."""


_SIGNS = list("-+0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), _SIGNS)


def _refuse_credentials(field: str, value: Any) -> None:
    """Settings are written to files and logs, so none of them may hold a secret; what it is is not repeated."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_credentials(field or "experiment", name)
            _refuse_credentials(f"{field}.{name}" if field else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_credentials(field, inner)
    elif isinstance(value, str) and _CREDENTIALS.search(value):
        cure = "give them in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE and their like)"
        raise ConfigError(field, "its address holds credentials", cure)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror})", "give the path of an experiment YAML"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(str(path), f"is not YAML: {problem}", "correct the file") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(str(path), f"holds a {type(values).__name__}", "an experiment is a mapping of settings")
    return values or {}


def _parse_value(field: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(field, f"{text!r} is not a YAML value", "quote it or correct it") from error
