"""What all groups of settings share: strictness, and the kinds of numbers."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Ratio = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _undotted(value: Any, prefix: str = "") -> Any:
    """Names of sites have dots, at which a setting of the command line was taken apart."""
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for name, inner in value.items():
        inner = _undotted(inner, f"{prefix}{name}.")
        result |= inner if isinstance(inner, dict) else {f"{prefix}{name}": inner}
    return result


def _share_or_count(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 < value < 1 or (value >= 1 and isinstance(value, int))):
        raise ValueError("must be a share in (0, 1) or a whole number of units")
    return value


#: YAML knows lists only, settings are immutable
FromList = BeforeValidator(_as_tuple)
#: JSON knows keys of text only
FromText = BeforeValidator(_as_number)


class Part(BaseModel):
    """A group of settings: unknown names are errors, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


#: name -> share of its units or count
Floors = Annotated[dict[str, Annotated[int | float, BeforeValidator(_share_or_count)]], BeforeValidator(_undotted)]
