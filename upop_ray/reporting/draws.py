"""What the drawn settings of a sweep did: their importance, by a study rebuilt from its points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upop_ray.reporting.points import PointRow, spread
from upop_ray.reporting.sweeps import SweepResults

#: finished draws of a method from which importances are told; fewer are noise alone
DRAWS = 8


@dataclass(frozen=True)
class Importances:
    """Share of each drawn setting in what the draws of a method differ by, or why it is not told."""

    method: str
    shares: Mapping[str, float]
    reason: str


def importances(sweep: SweepResults) -> list[Importances]:
    """Of each method whose settings were drawn.

    PED-ANOVA (Watanabe et al., 2023), as Optuna computes it, on the validation metric less the mean of the draws of the
    same ratio and seed: how much ratio and seed matter is no question of the draws.
    """
    drawn = [row for row in sweep.finished if row.drawn]
    return [
        _of_method(method, [row for row in drawn if row.method == method], sweep)
        for method in sorted({row.method for row in drawn})
    ]


def rule_of(sweep: SweepResults, setting: str) -> str:
    """How a setting was drawn: ``uniform``, ``log_uniform`` or ``choice``."""
    return next(iter(sweep.experiment.get("sweep", {}).get("space", {}).get(setting, {})), "choice")


def _of_method(method: str, rows: Sequence[PointRow], sweep: SweepResults) -> Importances:
    if len(rows) < DRAWS:
        return Importances(method, {}, f"importances need {DRAWS} finished draws, there are {len(rows)}")
    import optuna

    # an experiment's space may have changed between two runs, so bounds are those of what was drawn
    rules = {name: rule_of(sweep, name) for name in _settings(rows)}
    space = {name: _distribution([_value(row.drawn[name], rule) for row in rows], rule) for name, rule in rules.items()}
    space = {name: distribution for name, distribution in space.items() if not distribution.single()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for row, value in zip(rows, _without_cells(rows), strict=True):
        params = {name: _value(row.drawn[name], rules[name]) for name in space}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
    if not space or len(set(_without_cells(rows))) < 2:
        return Importances(method, {}, "all draws are the same, or gave the same")
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return Importances(method, optuna.importance.get_param_importances(study, evaluator=evaluator), "")


def _settings(rows: Sequence[PointRow]) -> list[str]:
    """Settings that were drawn for all of the points."""
    return [name for name in rows[0].drawn if all(name in row.drawn for row in rows)]


def _value(value: Any, rule: str) -> Any:
    """A choice may be of any type that YAML has, also a list; those of a study are of plain ones."""
    return repr(value) if rule == "choice" else value


def _distribution(values: Sequence[Any], rule: str) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if rule == "choice":
        return CategoricalDistribution(list(dict.fromkeys(values)))
    return FloatDistribution(min(values), max(values), log=rule == "log_uniform")


def _without_cells(rows: Sequence[PointRow]) -> list[float]:
    """Validation metric less the mean of the draws of the same ratio and seed."""
    cells: dict[tuple[float, int], list[float]] = {}
    for row in rows:
        cells.setdefault((row.ratio, row.seed), []).append(row.metric("validation"))
    return [row.metric("validation") - spread(cells[row.ratio, row.seed])[0] for row in rows]
