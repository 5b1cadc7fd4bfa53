"""From a validation error of pydantic to one line that a user can act on."""

import difflib
from collections.abc import Sequence
from typing import Any, Literal, get_args

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
    parts, group = _located(problem["loc"], model)
    field = ".".join(parts) or "experiment"
    value = problem["input"]
    if (parts and parts[-1] == "ratio") or ("ratios" in parts and problem["type"] in ("greater_than", "less_than")):
        return ConfigError(field, f"must be in (0, 1), got {value!r}", "0.5 removes half of the budget")
    if problem["type"] == "extra_forbidden":
        return ConfigError(field, f"unknown setting (value {value!r})", _nearest(parts[-1], group))
    if problem["type"] == "union_tag_invalid":
        names = problem["ctx"]["expected_tags"].replace("'", "")
        return ConfigError(f"{field}.name", f"no such {field}, got {problem['ctx']['tag']!r}", f"use one of {names}")
    shown = "" if isinstance(value, dict | BaseModel) else f", got {value!r}"
    text = problem["msg"].removeprefix("Value error, ")
    cure = _CURES.get(problem["type"], "give a value of that kind")
    return ConfigError(field, text[0].lower() + text[1:] + shown, cure)


def _located(loc: Sequence[int | str], model: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Dotted parts of a location as a user writes them, and the group of settings that the last one belongs to."""
    parts: list[str] = []
    group, kinds = model, [model]
    for name in map(str, loc):
        if len(kinds) > 1:
            # pydantic names which of several groups it is about; users do not
            group = next(kind for kind in kinds if kind.model_fields["name"].annotation == Literal[name])  # type: ignore[comparison-overlap]
            kinds = [group]
            continue
        parts.append(name)
        if name in group.model_fields:
            kinds = _groups(group.model_fields[name].annotation)
            group = kinds[0] if len(kinds) == 1 and name != str(loc[-1]) else group
    return parts, group


def _nearest(name: str, group: type[BaseModel]) -> str:
    known = sorted(group.model_fields)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _groups(annotation: Any) -> list[type[BaseModel]]:
    """The groups of settings that a field may hold, also inside unions and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for inner in get_args(annotation) for group in _groups(inner)]
