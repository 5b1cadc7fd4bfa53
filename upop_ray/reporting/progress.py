"""How far a sweep is, as the process that drives it writes it into the store while it runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from upop_ray.errors import StoreError
from upop_ray.reporting.ledger import Hours
from upop_ray.store import Store, SweepPaths
from upop_ray.store.many import read_json_if_there

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Running:
    """A point that is being computed.

    :param phase: ``starting``, ``search``, ``retrain``, or what else it reported last
    :param steps: of the phase; 0 while it is not known
    :param loss: reported last, if any was
    :param left: seconds that the phase will take; None while it is not known
    """

    label: str
    phase: str = "starting"
    step: int = 0
    steps: int = 0
    loss: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class SweepProgress:
    """A moment of a sweep's run.

    :param state: ``running``, ``ended``, or ``interrupted``
    :param updated: when this was so, in seconds of the epoch
    :param total: points that the sweep has, finished or not
    :param running: what is being computed
    :param waiting: why points wait for a place, if they do
    :param notes: what went wrong with points that go on, the last ones
    :param hours: what the sweep has spent, also in earlier runs
    """

    state: str
    updated: float
    total: int
    running: tuple[Running, ...] = ()
    waiting: str = ""
    notes: tuple[str, ...] = ()
    hours: Hours = field(default_factory=Hours)

    def ended(self, state: str, now: float) -> "SweepProgress":
        """The last moment: nothing runs any more."""
        return replace(self, state=state, updated=now, running=(), waiting="")

    def as_json(self) -> dict[str, Any]:
        """What the store has of it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def read_progress(store: Store, sweep: str) -> SweepProgress | None:
    """How far a sweep is, or how its last run ended; None when it was never run, or by a version that did not say.

    :raises StoreError: it cannot be read
    """
    path = SweepPaths(sweep).progress
    content = read_json_if_there(store, path)
    try:
        return None if content is None else _parsed(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{store.path(path)}: is not what a run of a sweep notes ({error!r}); remove it") from error


def _parsed(content: Mapping[str, Any]) -> SweepProgress:
    values = {name: value for name, value in content.items() if name != "schema_version"}
    values["running"] = tuple(Running(**point) for point in values["running"])
    values["notes"] = tuple(values["notes"])
    values["hours"] = Hours(**values["hours"])
    return SweepProgress(**values)
