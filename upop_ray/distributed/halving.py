"""Early stopping that compares only points of the same ratio and method."""

from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from upop_ray.config import EarlyStopping

#: a budget no point reaches: the end of a point is decided by its own schedule
_NO_LIMIT = 10**9


class HalvingByGroup(FIFOScheduler):
    """Asynchronous successive halving on the validation metric, one ladder for each (ratio, method).

    Trials carry their group as ``config["group"]``; results without ``validation`` pass.
    """

    def __init__(self, settings: EarlyStopping) -> None:
        super().__init__()
        self._settings = settings
        self._ladders: dict[str, AsyncHyperBandScheduler] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._ladder(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "validation" not in result or result.get("done"):
            return str(self.CONTINUE)
        return str(self._ladder(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "validation" in result:
            self._ladder(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._ladder(trial).on_trial_remove(tune_controller, trial)

    def _ladder(self, trial: Any) -> AsyncHyperBandScheduler:
        group = trial.config["group"]
        if group not in self._ladders:
            self._ladders[group] = AsyncHyperBandScheduler(
                time_attr="epoch",
                metric="validation",
                mode="max",
                max_t=_NO_LIMIT,
                grace_period=self._settings.grace_epochs,
                reduction_factor=self._settings.reduction,
            )
        return self._ladders[group]
