"""The checkup finds what would keep a sweep from running, and says what to do."""

import json
from pathlib import Path

import pytest
import ray

from tests.tiny import tiny_experiment
from upop_ray import doctor
from upop_ray.distributed import checkup
from upop_ray.distributed.checkup import Check, NodeFacts, examine_inputs, examine_nodes
from upop_ray.distributed.cluster import Node
from upop_ray.errors import UpopError
from upop_ray.store import Store, SweepPaths

OWN = {"python": "3.11.9", "torch": "2.13.0", "upop_ray": "0.1.0 (aaaa)"}
NODES = [Node(name, f"10.0.0.{name}", {"CPU": 8.0, "GPU": 0.0}, {"CPU": 8.0, "GPU": 0.0}) for name in "12"]
GOOD = NodeFacts(OWN, "point dense", "", (0.01, 0.002))


def found(second: NodeFacts | str | None) -> dict[str, Check]:
    """Checks of two nodes, the first of which is as the driver."""
    facts: dict[str, NodeFacts | str] = {"1": GOOD} | ({"2": second} if second else {})
    return {check.name: check for check in examine_nodes(NODES, facts, OWN, "point dense")}


def test_nodes_that_are_as_the_driver_pass() -> None:
    assert {check.level for check in found(GOOD).values()} == {"ok"}


@pytest.mark.parametrize(
    ("fact", "name", "words"),
    [
        (NodeFacts(OWN | {"torch": "2.12.0"}, "point dense", "", GOOD.clock), "versions agree", "2.12.0 (driver"),
        (NodeFacts(OWN, "other dense", "", GOOD.clock), "data and checkpoint on nodes", "other dense"),
        (NodeFacts(OWN, "point dense", "/x is another folder", GOOD.clock), "store on nodes", "another folder"),
        (NodeFacts(OWN, "point dense", "", (-6.0, 0.1)), "clocks agree", "6.0 s behind the driver"),
    ],
)  # fmt: skip
def test_a_node_that_differs_is_named_with_what_to_do(fact: NodeFacts, name: str, words: str) -> None:
    checks = found(fact)
    assert {check.name for check in checks.values() if check.level != "ok"} == {name}
    assert checks[name].level == "wrong" and checks[name].cure
    assert checks[name].found.startswith("10.0.0.2: ") and words in checks[name].found


def test_a_clock_that_cannot_be_read_exactly_is_not_blamed() -> None:
    assert found(NodeFacts(OWN, "point dense", "", (6.0, 1.5)))["clocks agree"].level == "ok"


def test_a_node_that_does_not_answer_is_named_and_does_not_keep_the_sweep_from_starting() -> None:
    check = found(None)["nodes answer"]
    assert (check.level, check.cure) == ("unknown", "look at 10.0.0.2")


def test_a_node_that_cannot_run_the_code_keeps_the_sweep_from_starting() -> None:
    checks = found("ModuleNotFoundError: No module named 'upop_ray'")
    assert checks["nodes answer"].level == "wrong" and checks["nodes answer"].cure
    assert checks["nodes answer"].found == "10.0.0.2: ModuleNotFoundError: No module named 'upop_ray'"
    assert checks["versions agree"].found == "on 1 nodes"


def test_what_this_process_can_see(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    assert [check.level for check in examine_inputs(experiment)] == ["ok", "ok"]
    assert not [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    gone = {"path": str(tmp_path / "gone")}
    store, inputs = examine_inputs(tiny_experiment(tmp_path, store="/proc/nothing", data=gone))
    assert (store.level, inputs.level) == ("wrong", "wrong")
    assert "/proc/nothing" in store.found and gone["path"] in inputs.found


@pytest.mark.slow
def test_the_command_shows_a_table_and_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert doctor.doctor(tiny_experiment(tmp_path)) == 0
        words = capsys.readouterr().out
        assert all(name in words for name in ("store", "replica fits", "versions agree", "clocks agree"))
        assert doctor.doctor(tiny_experiment(tmp_path, replica={"workers": 4})) == 2
        assert "use at most 2" in capsys.readouterr().out
        # the same path with other content on a node
        facts = checkup.asked(tiny_experiment(tmp_path), checkup.nodes())
        manifest = tmp_path / "data" / "manifest.json"
        content = json.loads(manifest.read_text())
        content["files"][0]["sha256"] = "0" * 64
        manifest.write_text(json.dumps(content))
        again = checkup.asked(tiny_experiment(tmp_path), checkup.nodes())
    finally:
        ray.shutdown()
    (before,), (after,) = facts.values(), again.values()
    assert isinstance(before, NodeFacts) and isinstance(after, NodeFacts)
    assert before.versions == checkup.own_versions() and before.store == ""
    assert before.inputs != after.inputs


def test_a_node_that_came_later_takes_no_point_unless_it_is_one_of_the_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.9")
    store, own = Store(str(tmp_path)), checkup.own_versions()
    with pytest.raises(UpopError, match=r"store: .* is another folder on node 10\.0\.0\.9 than the driver's; mount"):
        checkup.require_same(store, "mine", own)
    store.write(SweepPaths("mine").experiment, b"")
    checkup.require_same(store, "mine", own)
    with pytest.raises(UpopError, match=rf"10\.0\.0\.9 has torch {own['torch'].replace('+', '.')} \(driver 1\.0\)"):
        checkup.require_same(store, "mine", own | {"torch": "1.0"})
