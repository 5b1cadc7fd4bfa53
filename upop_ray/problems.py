"""From a validation error of pydantic to one line that a user can act on."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from upop_ray.errors import ConfigError

#: what to write instead, by pydantic's error type
_CURES = {
    "extra_forbidden": "remove it or correct its spelling",
    "greater_than": "use a larger value",
    "greater_than_equal": "use a larger value",
    "less_than": "use a smaller value",
    "less_than_equal": "use a smaller value",
    "value_error": "correct it",
}


def first_problem(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """The first thing that pydantic found wrong, with dotted field, value and cure.

    :param model: what was validated, to name settings that are close to an unknown one
    """
    problem = error.errors()[0]
    parts = [str(part) for part in problem["loc"]]
    field = ".".join(parts) or "experiment"
    value = problem["input"]
    if (parts and parts[-1] == "ratio") or ("ratios" in parts and problem["type"] in ("greater_than", "less_than")):
        return ConfigError(field, f"must be in (0, 1), got {value!r}", "0.5 removes half of the budget")
    if problem["type"] == "extra_forbidden":
        return ConfigError(field, f"unknown setting (value {value!r})", _nearest(parts, model))
    shown = "" if isinstance(value, dict | BaseModel) else f", got {value!r}"
    text = problem["msg"].removeprefix("Value error, ")
    cure = _CURES.get(problem["type"], "give a value of that kind")
    return ConfigError(field, text[0].lower() + text[1:] + shown, cure)


def _nearest(parts: Sequence[str], model: type[BaseModel]) -> str:
    part: Any = model
    for name in parts[:-1]:
        part = _settings_group(part.model_fields[name].annotation)
    known = sorted(part.model_fields)
    close = difflib.get_close_matches(parts[-1], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _settings_group(annotation: Any) -> type[BaseModel]:
    """The group of settings that a field holds, also where it may be None."""
    kinds = get_args(annotation) or (annotation,)
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
