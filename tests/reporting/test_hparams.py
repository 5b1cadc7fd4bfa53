"""The HParams page, by what TensorBoard's own plugin reads from a sweep's folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

from tests.reporting.boards import finished
from tests.reporting.results import Made
from upop_ray.reporting.hparams import Comparison
from upop_ray.store import Store


def page(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The experiment (columns), and the sessions by their name."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    experiment = get_experiment.Handler(
        RequestContext(), context, "id", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    columns = [api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        include_metrics=True,
        col_params=columns,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
    )
    groups = list_session_groups.Handler(RequestContext(), context, "id", request).run().session_groups
    return experiment, {group.name: group for group in groups}


def test_points_are_compared_by_their_settings_under_their_own_names(tmp_path: Path) -> None:
    store, drawn = Store(str(tmp_path)), {"retrain.learning_rate": 0.01, "search.score": "signed"}
    comparison = Comparison(store, "s", {*drawn, "seed"})
    comparison.begin([finished(Made("magnitude", 0.3, 0, 55.0, 54.0, 0, drawn))])
    comparison.add(finished(Made("upop", 0.5, 1, 50.0, 49.0, 2, drawn)))
    experiment, sessions = page(tmp_path / "sweeps" / "s" / "tensorboard")
    assert set(sessions) == {"magnitude-0.3-seed0-draw0", "upop-0.5-seed1-draw2"}
    names = {info.name for info in experiment.hparam_infos}
    assert names == {"method", "ratio", "seed", "retrain.learning_rate", "search.score"}
    assert [info.display_name for info in experiment.metric_infos][:2] == ["validation r_mean", "test r_mean"]
    settings = sessions["upop-0.5-seed1-draw2"].hparams
    assert (settings["ratio"].number_value, settings["method"].string_value) == (0.5, "upop")
    assert settings["retrain.learning_rate"].number_value == 0.01
    # which the point's manifest does not have: its method does not read it
    assert "search.score" not in settings
    metrics = {value.name.tag: value.value for value in sessions["upop-0.5-seed1-draw2"].metric_values}
    assert metrics["result/validation r_mean"] == 50.0 and metrics["result/test r_mean"] == 49.0
    assert metrics["result/before retraining"] == 20.0


def test_what_is_there_is_not_written_again_unless_other_settings_are_varied(store: Store) -> None:
    rows = [finished(Made("upop", 0.5, 0, 50.0))]
    Comparison(store, "s", []).begin(rows)
    before = store.sizes("sweeps/s/tensorboard")
    (name,) = before
    store.write(name, bytes(before[name]))
    Comparison(store, "s", []).begin(rows)
    assert store.read(name) == bytes(before[name])
    Comparison(store, "s", ["retrain.learning_rate"]).begin(rows)
    assert store.sizes("sweeps/s/tensorboard")[name] > before[name]


def test_a_point_of_other_settings_leaves_its_name_to_the_new_one(tmp_path: Path) -> None:
    """What a sweep has computed, and then its settings are changed, once and back again."""
    store = Store(str(tmp_path))
    old, new = (replace(finished(Made("upop", 0.5, 0, score)), hash=hash) for hash, score in (("a", 50.0), ("b", 40.0)))
    run = f"sweeps/s/tensorboard/points/{old.label}"
    store.write(f"{run}/events.out.tfevents.1.of-the-old-point", b"")
    Comparison(store, "s", []).begin([old])
    assert len(store.list(run)) == 2
    # nothing is known of the new point when the sweep begins; then it is begun, and finished
    Comparison(store, "s", []).begin([])
    assert not store.list(run)
    store.write(f"{run}/events.out.tfevents.2.of-the-new-point", b"")
    unfinished = replace(new, manifest=None, state="proposed")
    comparison = Comparison(store, "s", [])
    comparison.begin([unfinished])
    comparison.add(new)
    Comparison(store, "s", []).begin([new])
    assert len(store.list(run)) == 2
    Comparison(store, "s", []).begin([old])
    assert len(store.list(run)) == 1
    _, sessions = page(tmp_path / "sweeps" / "s" / "tensorboard")
    (found,) = sessions.values()
    assert 50.0 in [value.value for value in found.metric_values]
