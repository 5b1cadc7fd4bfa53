"""Every wrong setting is one line: the field, its value and the cure."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from upop_ray import config
from upop_ray.config import Experiment, at_ratio, load, parse, replaced
from upop_ray.errors import ConfigError
from upop_ray.identity import NOT_HASHED, point_hash


def message_of(call: Callable[[], Any], field: str) -> str:
    """The message of the ConfigError that ``call`` raises: ``field: problem; cure`` in one line."""
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert caught.value.field == field
    assert re.fullmatch(r"[^:]+: .+; .+", message), message
    assert message.startswith(f"{field}: ")
    return message


def nested(field: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    config.set_field(values, field, value)
    return values


@pytest.mark.parametrize(
    ("field", "value", "cure"),
    [
        ("serach", {"ratio": 0.5}, "did you mean 'search'?"),
        ("search.intervall", 5, "did you mean 'interval'?"),
        ("search.regularisation.visoin", 0.1, "did you mean 'vision'?"),
        ("task.momentum.queuesize", 48, "did you mean 'queue_size'?"),
        ("sweep.early_stopping.grace_epoch", 4, "did you mean 'grace_epochs'?"),
        ("retrain.zzz", 1, "known here: epochs, learning_rate, minimum_learning_rate, schedule"),
        ("sweep.early_stopping.zzz", 1, "known here: grace_epochs, reduction"),
    ],
)
def test_an_unknown_setting_names_the_nearest_one(field: str, value: Any, cure: str) -> None:
    message = message_of(lambda: parse(nested(field, value)), field)
    assert "unknown setting" in message and str(value) in message and message.endswith(cure)


@pytest.mark.parametrize("ratio", [0, 0.0, 1, 1.0, 1.2, -0.5, float("nan"), "half", None])
def test_a_ratio_outside_its_range_is_refused(ratio: Any) -> None:
    message = message_of(lambda: parse({"search": {"ratio": ratio}}), "search.ratio")
    assert message == f"search.ratio: must be in (0, 1), got {ratio!r}; 0.5 removes half of the budget"


@pytest.mark.parametrize("ratio", [0, 1.0, 1.2])
def test_a_ratio_of_a_sweep_outside_its_range_is_refused(ratio: float) -> None:
    message = message_of(lambda: parse({"sweep": {"ratios": [0.5, ratio]}}), "sweep.ratios.1")
    assert message == f"sweep.ratios.1: must be in (0, 1), got {ratio!r}; 0.5 removes half of the budget"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "zero"),
        ("seed", 1.5),
        ("seed", True),
        ("batch_size", 0),
        ("batch_size", "128"),
        ("name", "a/b"),
        ("name", ""),
        ("precision", "fp16"),
        ("search.method", "pruning"),
        ("search.budget", "flops"),
        ("search.interval", 0),
        ("search.floor", 0),
        ("search.learning_rate", 0.0),
        ("search.learning_rate", float("nan")),
        ("search.learning_rate", float("inf")),
        ("search.learning_rate", "fast"),
        ("search.penalty.mlp", -1.0),
        ("retrain.epochs", 0),
        ("optimizer.weight_decay", -0.1),
        ("data.workers", -1),
        ("data.lanes", 0),
        ("data.buffer", 0),
        ("data.cache_gb", 0.0),
        ("data.in_memory_mb", -1.0),
        ("replica.workers", 0),
        ("replica.zero_stage", 4),
        ("sweep.samples", 0),
        ("sweep.ratios", 0.5),
        ("sweep.ratios", []),
        ("sweep.ratios", [0.5, 0.5]),
        ("sweep.methods", []),
        ("sweep.seeds", []),
        ("sweep.retries", -1),
        ("search", 0.5),
        ("search", "upop"),
        ("sweep", [0.5]),
        ("model.path", 3),
    ],
)
def test_a_wrong_value_is_shown_with_its_field(field: str, value: Any) -> None:
    message = message_of(lambda: parse(nested(field, value)), field)
    assert repr(value) in message or repr(tuple(value) if isinstance(value, list) else value) in message


def test_a_batch_that_workers_cannot_share_is_refused() -> None:
    message = message_of(lambda: parse({"batch_size": 10, "replica": {"workers": 3}}), "batch_size")
    assert "10" in message and "replica.workers 3" in message and message.endswith("; use a multiple of 3")


def test_a_queue_that_batches_do_not_fill_evenly_is_refused() -> None:
    values = {"batch_size": 10, "task": {"loss": "momentum", "momentum": {"queue_size": 48}}}
    message = message_of(lambda: parse(values), "task.momentum.queue_size")
    assert "48" in message and message.endswith("; use a multiple of 10")
    # the queue is not used by the other loss
    assert parse(values | {"task": {"momentum": {"queue_size": 48}}}).batch_size == 10


def test_nccl_without_gpus_is_refused() -> None:
    message = message_of(lambda: parse({"replica": {"backend": "nccl"}}), "replica.backend")
    assert "nccl" in message and "gpus_per_worker" in message and "gloo" in message
    assert parse({"replica": {"backend": "nccl", "gpus_per_worker": 1}}).replica.backend == "nccl"


@pytest.mark.parametrize("override", ["search.ratio", "search.ratio 0.5", "=0.5", ""])
def test_an_override_without_a_setting_or_a_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not an override; write setting=value, for example search\.ratio=0\.5"):
        load(overrides=[override])


def test_an_override_through_a_value_is_refused() -> None:
    message = message_of(lambda: load(overrides=["search.ratio.vision=0.5"]), "search.ratio.vision")
    assert message.endswith("search.ratio is a value, not a group of settings; set search.ratio itself")


def test_an_override_of_an_unknown_group_is_refused() -> None:
    message = message_of(lambda: load(overrides=["serach.ratio=0.5"]), "serach")
    assert message.endswith("did you mean 'search'?")


def test_an_override_that_is_no_yaml_is_refused() -> None:
    assert "'[1'" in message_of(lambda: load(overrides=["sweep.seeds=[1"]), "sweep.seeds")


def test_overrides_are_read_as_yaml_and_the_last_one_holds() -> None:
    overrides = ["search.ratio=0.4", "sweep.seeds=[3, 4]", "search.learning_rate=1e-4", "search.ratio=0.25", "name=x=y"]
    with pytest.raises(ConfigError, match="name"):
        load(overrides=overrides)
    experiment = load(overrides=[*overrides[:-1], "name=x.y", "sweep.early_stopping.grace_epochs=7"])
    assert (experiment.search.ratio, experiment.sweep.seeds) == (0.25, (3, 4))
    assert (experiment.search.learning_rate, experiment.name) == (1e-4, "x.y")
    assert experiment.sweep.early_stopping is not None and experiment.sweep.early_stopping.grace_epochs == 7


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: [1", "is not YAML"),
        (b"\tname: x", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- name: x", "holds a list"),
        (b"just words", "holds a str"),
    ],
)
def test_a_file_that_is_no_experiment_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_bytes(content)
    assert problem in message_of(lambda: load(file), str(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        message = message_of(lambda path=path: load(path), str(path))
        assert "cannot be read" in message and message.endswith("; give the path of an experiment YAML")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("")
    assert load(file) == Experiment()


def test_an_experiment_survives_yaml(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    changes = {
        "search.regularisation.attention": 0.25,
        "optimizer.epsilon": 1e-8,
        "task.momentum.shared": ["text_model.final_layer_norm"],
        "sweep.early_stopping": {"grace_epochs": 3},
        "sweep.space": {"search.learning_rate": {"log_uniform": [1e-5, 1e-3]}},
        "replica.deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 10}},
        "sweep.by_ratio": {0.75: {"search.epochs": 8}},
    }
    for experiment in (Experiment(), load(), replaced(load(), changes)):
        file.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        assert load(file) == experiment


def test_replaced_validates_again_and_leaves_the_original() -> None:
    experiment = Experiment()
    assert replaced(experiment, {"search.ratio": 0.3, "seed": 4}).search.ratio == 0.3
    assert experiment.search.ratio == 0.5 and experiment.seed == 0
    message_of(lambda: replaced(experiment, {"search.ratio": 3}), "search.ratio")


HASH = point_hash(Experiment(), "data", "weights")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"store": "s3://bucket/prefix"},
        {"replica.workers": 2},
        {"replica.zero_stage": 3},
        {"checkpoint_steps": 7},
        {"report_steps": 3},
        {"sweep.ratios": [0.1, 0.2]},
        {"sweep.by_ratio": {0.1: {"search.epochs": 3}}},
        {"published": {"source": "x", "train_examples": 1, "prepare": "y", "checkpoint": "z"}},
    ],
)
def test_the_hash_ignores_what_does_not_decide_the_result(changes: dict[str, Any]) -> None:
    assert next(iter(changes)).split(".")[0] in NOT_HASHED
    assert point_hash(replaced(Experiment(), changes), "data", "weights") == HASH


def test_the_hash_changes_with_everything_else() -> None:
    changes: list[dict[str, Any]] = [
        {"search.ratio": 0.51},
        {"seed": 1},
        {"batch_size": 64},
        {"precision": "bf16"},
        {"search.method": "magnitude"},
        {"search.budget": "macs"},
        {"search.regularisation.vision": 0.1},
        {"retrain.epochs": 2},
        {"optimizer.weight_decay": 0.1},
        {"task.loss": "momentum", "task.momentum.queue_size": 1280},
    ]
    hashes = {point_hash(replaced(Experiment(), change), "data", "weights") for change in changes}
    hashes |= {point_hash(Experiment(), "other", "weights"), point_hash(Experiment(), "data", "other"), HASH}
    assert len(hashes) == len(changes) + 3


def test_the_hash_does_not_depend_on_the_order_of_settings() -> None:
    first = parse({"seed": 3, "search": {"ratio": 0.2, "epochs": 2}})
    second = parse({"search": {"epochs": 2, "ratio": 0.2}, "seed": 3})
    assert point_hash(first, "data", "weights") == point_hash(second, "data", "weights")


BY_RATIO = {"sweep": {"by_ratio": {0.75: {"search.epochs": 8, "retrain.epochs": 9}}}}


def test_what_differs_by_ratio_is_there_at_that_ratio_alone() -> None:
    experiment = parse(BY_RATIO)
    low, high = at_ratio(experiment, 0.5), at_ratio(experiment, 0.75)
    assert (low.search.ratio, low.search.epochs, low.retrain.epochs) == (0.5, 1, 1)
    assert (high.search.ratio, high.search.epochs, high.retrain.epochs) == (0.75, 8, 9)


def test_the_command_line_counts_for_every_ratio(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(BY_RATIO))
    high = at_ratio(load(file, ["search.epochs=2"]), 0.75)
    assert (high.search.epochs, high.retrain.epochs) == (2, 9)
    assert at_ratio(load(file, ["retrain={epochs: 3}"]), 0.75).retrain.epochs == 3
    # one of several shares that are one setting
    file.write_text(yaml.safe_dump({"sweep": {"by_ratio": {0.75: {"search.floors": {"vision": 0.1, "cross": 0.2}}}}}))
    assert at_ratio(load(file, ["search.floors.vision=0.3"]), 0.75).search.floors == {"vision": 0.3, "cross": 0.2}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"search.intervall": 5}, "search.intervall"),
        ({"search.epochs": 0}, "search.epochs"),
        ({"search.method": "mask"}, "sweep.by_ratio.0.75.search.method"),
        ({"replica.workers": 2}, "sweep.by_ratio.0.75.replica.workers"),
        # what is not named in a group would be reset to its default
        ({"search": {"epochs": 8}}, "sweep.by_ratio.0.75.search"),
        ({"search.penalty": {"mlp": 1.0}}, "sweep.by_ratio.0.75.search.penalty"),
        ({"task": {}}, "sweep.by_ratio.0.75.task"),
    ],
)
def test_what_cannot_differ_by_ratio_is_refused(settings: dict[str, Any], field: str) -> None:
    message_of(lambda: parse({"sweep": {"by_ratio": {0.75: settings}}}), field)


def test_a_group_by_ratio_says_what_to_write() -> None:
    values = {"sweep": {"by_ratio": {0.75: {"search": {"epochs": 8}}}}}
    assert message_of(lambda: parse(values), "sweep.by_ratio.0.75.search").endswith("; write search.epochs: 8")


@pytest.mark.parametrize("value", ["{0.5: 3}", "3", "{0.5: [search.epochs]}"])
def test_what_is_no_settings_by_ratio_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^sweep\.by_ratio"):
        load(overrides=[f"sweep.by_ratio={value}", "search.epochs=2"])


def test_a_published_point_is_there_once_for_a_source() -> None:
    point = {"ratio": 0.5, "scores": {"accuracy": 80.0}}
    section = {"source": "x", "train_examples": 1, "prepare": "y", "checkpoint": "z"}
    two = {**point, "source": "another"}
    assert len((parse({"published": {**section, "points": [point, two]}}).published or pytest.fail()).points) == 2
    message_of(lambda: parse({"published": {**section, "points": [point, point]}}), "published.points")


def test_the_builtin_experiment_is_valid() -> None:
    assert load().name == "builtin_clip"


def test_numbers_with_an_exponent_are_numbers_in_files_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("retrain: {learning_rate: 1e-4, minimum_learning_rate: 1.5E-6}\n")
    experiment = load(path, ["search.learning_rate=2e-4"])
    assert (experiment.retrain.learning_rate, experiment.retrain.minimum_learning_rate) == (1e-4, 1.5e-6)
    assert experiment.search.learning_rate == 2e-4


def test_the_same_content_at_another_path_is_the_same_point() -> None:
    homes = [{"model.path": f"/{home}/model", "data.path": f"/{home}/data"} for home in ("here", "elsewhere")]
    here, elsewhere = (point_hash(replaced(Experiment(), home), "data", "weights") for home in homes)
    assert here == elsewhere


def test_how_data_are_read_is_hashed_where_it_decides_their_order() -> None:
    order: list[dict[str, Any]] = [{"data.lanes": 4}, {"data.buffer": 100}]
    means: list[dict[str, Any]] = [
        {"data.workers": 2},
        {"data.cache": "/scratch", "data.cache_gb": 1.5},
        {"data.in_memory_mb": 0.0},
    ]
    for path, hashed in (("/folder", True), ("builtin:emoji", False)):
        plain = replaced(Experiment(), {"data.path": path})
        before = point_hash(plain, "data", "weights")
        assert all(point_hash(replaced(plain, change), "data", "weights") == before for change in means)
        assert all((point_hash(replaced(plain, change), "data", "weights") != before) == hashed for change in order)
