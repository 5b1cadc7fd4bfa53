"""What the autoscaler of a cluster says: whether nodes can come by themselves, and what it will never have."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.experimental.internal_kv import _internal_kv_get
from ray.util import placement_group, remove_placement_group

from upop_ray.errors import ConfigError

#: the kind that Ray makes of machines reached by SSH; what they have is not known before they are there
_OF_UNKNOWN_SIZE = "local.cluster.node"
#: seconds in which an autoscaler says that it has no kind of node for a demand; it looks every five
_VERDICT = 12.0


def has_autoscaler() -> bool:
    """Whether nodes can come by themselves; the autoscaler of a cluster that was put up by hand only looks on."""
    # nodes that an onlooker finds are each a type of its own, called after the node
    return any(kind and not kind.startswith("node_") for kind in _node_types())


def require_possible(bundles: Sequence[Mapping[str, float]], asked: str) -> None:
    """Ask the autoscaler for a replica; what it does not refuse at once may still come, which takes minutes.

    An autoscaler of the first version (``ray up`` without ``RAY_enable_autoscaler_v2``) refuses nothing.

    :param bundles: what each process of the replica asks for
    :param asked: the same for people
    :raises ConfigError: there is no kind of node for them, or there may not be enough of them
    """
    if not is_autoscaler_v2(fetch_from_server=True) or _OF_UNKNOWN_SIZE in _node_types():
        return
    group, end = placement_group([dict(bundle) for bundle in bundles]), time.monotonic() + _VERDICT
    try:
        while not group.wait(1) and time.monotonic() < end:
            if _demand(bundles) in _refused():
                cure = "ask for less, or give the cluster such a kind of node, and more of them (max_workers)"
                raise ConfigError("replica", f"the autoscaler can never provide {asked}", cure)
    finally:
        remove_placement_group(group)


def _node_types() -> set[str]:
    """Names that the autoscaler has for its kinds of nodes."""
    if is_autoscaler_v2(fetch_from_server=True):
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        return {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes, *status.pending_nodes)}
    status = _internal_kv_get("__autoscaling_status")
    report = json.loads(status).get("autoscaler_report") if status else None
    return set(report["node_type_mapping"].values()) if report else set()


def _refused() -> list[list[dict[str, float]]]:
    """The demands of placement groups that the autoscaler can never meet, which Ray's own client leaves out."""
    reply: Any = GetClusterStatusReply.FromString(
        GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=5)
    )
    groups = reply.autoscaling_state.infeasible_gang_resource_requests
    return [_demand([request.resources_bundle for request in group.requests]) for group in groups]


def _demand(bundles: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Bundles in one order."""
    return sorted((dict(bundle) for bundle in bundles), key=lambda bundle: sorted(bundle.items()))
