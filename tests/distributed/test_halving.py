"""Early stopping compares within a ratio and method, never across."""

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from upop_ray.config import EarlyStopping
from upop_ray.distributed.halving import HalvingByGroup


def trial(name: str, group: str) -> Any:
    return SimpleNamespace(trial_id=name, config={"group": group}, status="RUNNING")


def test_a_poor_trial_stops_beside_a_better_one_of_its_group_and_not_beside_others() -> None:
    scheduler = HalvingByGroup(EarlyStopping(grace_epochs=1, reduction=2))
    good, poor, other = trial("a", "upop/0.5"), trial("b", "upop/0.5"), trial("c", "upop/0.9")
    for each in (good, poor, other):
        scheduler.on_trial_add(None, each)
    results = [scheduler.on_trial_result(None, t, {"epoch": 1, "validation": v}) for t, v in ((good, 50), (poor, 30))]
    assert results == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
    # 10 at ratio 0.9 is worse than both, and the best of its own group
    assert scheduler.on_trial_result(None, other, {"epoch": 1, "validation": 10}) == TrialScheduler.CONTINUE


def test_reports_without_a_validation_metric_pass() -> None:
    scheduler = HalvingByGroup(EarlyStopping())
    only = trial("a", "upop/0.5")
    scheduler.on_trial_add(None, only)
    assert scheduler.on_trial_result(None, only, {"loss": 1.0}) == TrialScheduler.CONTINUE
