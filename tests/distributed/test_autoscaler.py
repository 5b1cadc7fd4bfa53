"""What is made of an autoscaler's answers; their form is that of Ray 2.60 with nodes of 2 CPUs that it could add."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

from upop_ray.distributed import autoscaler
from upop_ray.errors import ConfigError

ASKED = [{"CPU": 0.01}, {"CPU": 2.99, "GPU": 1.0}]


class Answers:
    """An autoscaler that refuses some demands."""

    def __init__(self, *refused: list[dict[str, float]], kind: str = "small") -> None:
        self.refused, self.kind, self.looks, self.removed = refused, kind, 0, False

    def status(self, address: str) -> Any:
        node = SimpleNamespace(ray_node_type_name=self.kind)
        return SimpleNamespace(active_nodes=[], idle_nodes=[node], pending_nodes=[])

    def client(self, address: str) -> Any:
        return SimpleNamespace(get_cluster_status=self.reply)

    def reply(self, timeout_s: int) -> bytes:
        self.looks += 1
        reply = GetClusterStatusReply()
        for bundles in self.refused:
            group = reply.autoscaling_state.infeasible_gang_resource_requests.add()
            for bundle in bundles:
                group.requests.add().resources_bundle.update(bundle)
        content: bytes = reply.SerializeToString()
        return content

    def group(self, bundles: list[dict[str, float]]) -> Any:
        return SimpleNamespace(wait=lambda seconds: False)

    def remove(self, group: Any) -> None:
        self.removed = True


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def with_(found: Answers, second_version: bool = True) -> Answers:
        context = SimpleNamespace(gcs_address="here")
        monkeypatch.setattr(autoscaler, "is_autoscaler_v2", lambda fetch_from_server: second_version)
        monkeypatch.setattr(autoscaler.ray, "get_runtime_context", lambda: context)
        monkeypatch.setattr(autoscaler, "get_cluster_status", found.status)
        monkeypatch.setattr(autoscaler, "GcsClient", found.client)
        monkeypatch.setattr(autoscaler, "placement_group", found.group)
        monkeypatch.setattr(autoscaler, "remove_placement_group", found.remove)
        monkeypatch.setattr(autoscaler, "_VERDICT", 0.05)
        return found

    yield with_


def test_what_the_autoscaler_refuses_is_an_error_that_names_it(answers: Any) -> None:
    found = answers(Answers([{"CPU": 4.0}], ASKED[::-1]))
    with pytest.raises(ConfigError, match=r"replica: the autoscaler can never provide 1 x \(3 CPU, 1 GPU\); ask for"):
        autoscaler.require_possible(ASKED, "1 x (3 CPU, 1 GPU)")
    assert found.removed


def test_demands_of_others_that_are_refused_do_not_count(answers: Any) -> None:
    found = answers(Answers([{"CPU": 4.0}]))
    autoscaler.require_possible(ASKED, "")
    assert found.looks >= 1 and found.removed


def test_an_autoscaler_of_the_first_version_is_not_asked(answers: Any) -> None:
    found = answers(Answers(ASKED), second_version=False)
    autoscaler.require_possible(ASKED, "")
    assert found.looks == 0 and not found.removed


def test_machines_reached_by_ssh_may_have_anything(answers: Any) -> None:
    found = answers(Answers(ASKED, kind="local.cluster.node"))
    autoscaler.require_possible(ASKED, "")
    assert found.looks == 0 and not found.removed
