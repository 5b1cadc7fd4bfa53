"""What can be known before a sweep starts: store, data, checkpoint, places for replicas, and whether nodes agree."""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.distributed.autoscaler import has_autoscaler, require_possible
from upop_ray.distributed.cluster import Node, check_resources, nodes
from upop_ray.distributed.replica import replica_bundles
from upop_ray.errors import UpopError
from upop_ray.store import Store, SweepPaths
from upop_ray.training.finish import versions
from upop_ray.training.prepared import content_addresses, prepare

#: seconds by which a node's clock may differ from the driver's: curves and logs are ordered by it
CLOCK_TOLERANCE = 5.0
#: seconds in which all nodes answer, so that a checkup ends within a minute; a sweep that starts waits less
NODE_SECONDS = 40.0
_LEVEL = Literal["ok", "unknown", "wrong"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    :param level: ``unknown`` where nothing could be found out, which does not keep a sweep from starting
    :param cure: what to do about it
    """

    name: str
    level: _LEVEL
    found: str
    cure: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself.

    :param inputs: content address of the point and of the dense model there, or why there is none
    :param store: why its store is not the driver's; empty when it is
    :param clock: seconds by which its clock is ahead of the driver's, and how far off that may be
    """

    versions: dict[str, str]
    inputs: str
    store: str
    clock: tuple[float, float]


def examine_inputs(experiment: Experiment) -> Iterator[Check]:
    """Look at what this process can see without a cluster: the store, the data, the checkpoint."""
    yield _tried("store", lambda: f"{_checked_store(experiment)}: files can be made, read, listed, removed")
    yield _tried("data and checkpoint", lambda: f"{experiment.data.path}, {experiment.model.path}{_opened(experiment)}")


def examine_cluster(experiment: Experiment, seconds: float = NODE_SECONDS) -> Iterator[Check]:
    """Look at the cluster that this process is connected to, one process on each node that can compute.

    :param seconds: in which nodes have to answer
    """
    yield _tried("replica fits", lambda: _places(experiment))
    computing = [node for node in nodes() if any(node.total.values())]
    facts = asked(experiment, computing, seconds)
    yield from examine_nodes(computing, facts, own_versions(), _addresses(experiment))


def check_places(experiment: Experiment) -> None:
    """Make sure that a replica can be placed, now or when nodes have come.

    :raises ConfigError: it asks for what the cluster does not have, and its autoscaler cannot provide
    """
    if has_autoscaler():
        require_possible(replica_bundles(experiment.replica), _asked(experiment))
    else:
        check_resources(experiment)


def examine_nodes(
    present: Sequence[Node], facts: Mapping[str, NodeFacts | str], own: dict[str, str], inputs: str
) -> Iterator[Check]:
    """Compare what nodes say of themselves with the driver.

    :param facts: by id of the node, or why it could not say them; a node that is missing did not answer
    """
    answers = [(node, facts.get(node.id)) for node in present]
    yield _answering(answers)
    answered = [(node, fact) for node, fact in answers if isinstance(fact, NodeFacts)]
    if not answered:
        return
    yield _compared(
        "versions agree", answered, lambda fact: _differing(fact.versions, own), "install the same versions"
    )
    yield _compared("clocks agree", answered, _clock_problem, "let the nodes keep time (NTP)")
    yield _compared("store on nodes", answered, lambda fact: fact.store, "mount the same folder, or use s3://")
    yield _compared(
        "data and checkpoint on nodes",
        answered,
        lambda fact: "" if fact.inputs == inputs else fact.inputs,
        "put the same files at the same path on every node, or use URIs",
    )


def asked(experiment: Experiment, present: Sequence[Node], seconds: float = NODE_SECONDS) -> dict[str, NodeFacts | str]:
    """What each node says of itself, by id, or why it cannot; nodes that do not answer in time are left out."""
    store, name = Store(experiment.store), f".check/{time.time_ns()}"
    store.write(name, b"seen by every node")
    probes = {node.id: _probe(node) for node in present}
    calls = {probe.facts.remote(experiment.model_dump(mode="json"), name): id for id, probe in probes.items()}
    try:
        ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=seconds) if calls else ([], [])
        answers = {calls[call]: _answer(call, probes[calls[call]]) for call in ready}
        # one that went away meanwhile has not shown that it cannot run this
        there = {node.id for node in nodes()}
        return {id: answer for id, answer in answers.items() if id in there or isinstance(answer, NodeFacts)}
    finally:
        for probe in probes.values():
            ray.kill(probe)
        store.remove(name)


@functools.cache
def own_versions() -> dict[str, str]:
    """Versions of what results depend on, and a hash of this package's own source."""
    found = versions()
    digest = hashlib.sha256()
    package = Path(config.__file__).parent.parent
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)} ".encode() + file.read_bytes())
    return found | {"upop_ray": f"{found['upop_ray']} ({digest.hexdigest()[:8]})"}


def require_same(store: Store, sweep: str, versions: Mapping[str, str]) -> None:
    """Make sure, before a point is begun here, that this node is one of the driver's: it may have come later.

    :param versions: the driver's, see :func:`own_versions`
    :raises UpopError: it has another store, or other versions
    """
    place = f"node {ray.util.get_node_ip_address()}"
    if not store.exists(SweepPaths(sweep).experiment):
        problem = f"{store.uri} is another folder on {place} than the driver's"
        raise UpopError(f"store: {problem}; mount the same folder on all nodes, or use s3://")
    differing = _differing(own_versions(), dict(versions))
    if differing:
        raise UpopError(f"versions: {place} has {differing}; install the same versions on all nodes")


def named(present: Sequence[Node], most: int = 5) -> str:
    """Addresses of nodes, for people."""
    shown = ", ".join(node.address for node in present[:most])
    return shown + (f" and {len(present) - most} more" if len(present) > most else "")


class _Probe:
    """A process on one node."""

    def facts(self, values: dict[str, Any], seen: str) -> tuple[dict[str, str], str, str]:
        experiment = config.parse(values)
        return own_versions(), _addresses(experiment), _store_problem(experiment, seen)

    def clock(self) -> float:
        return time.time()


def _probe(node: Node) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(_Probe).options(num_cpus=0, scheduling_strategy=strategy).remote()


def _answer(call: Any, probe: Any) -> NodeFacts | str:
    try:
        found, inputs, store = ray.get(call)
        return NodeFacts(found, inputs, store, min((_clock(probe) for _ in range(3)), key=lambda clock: clock[1]))
    except ray.exceptions.RayTaskError as error:
        return f"{type(error.cause).__name__}: {str(error.cause).strip().splitlines()[0]}"
    except ray.exceptions.RayError as error:
        # what happened on the node comes last
        return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _answering(answers: Sequence[tuple[Node, NodeFacts | str | None]]) -> Check:
    """Whether every node can run this code at all."""
    broken = [(node, fact) for node, fact in answers if isinstance(fact, str)]
    if broken:
        (node, why), others = broken[0], [node for node, _ in broken[1:]]
        more = f"; also on {named(others)}" if others else ""
        return Check("nodes answer", "wrong", f"{node.address}: {why}{more}", "install the same versions there")
    silent = [node for node, fact in answers if fact is None]
    found = f"{len(answers) - len(silent)} of {len(answers)} nodes answered in time"
    return Check("nodes answer", "unknown" if silent else "ok", found, f"look at {named(silent)}" if silent else "")


def _clock(probe: Any) -> tuple[float, float]:
    before = time.time()
    there = ray.get(probe.clock.remote(), timeout=5.0)
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2


def _clock_problem(fact: NodeFacts) -> str:
    ahead, uncertain = fact.clock
    if abs(ahead) - uncertain <= CLOCK_TOLERANCE:
        return ""
    return (
        f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the driver ({CLOCK_TOLERANCE:g} s are tolerated)"
    )


def _differing(there: dict[str, str], own: dict[str, str]) -> str:
    names = [name for name in own if there.get(name) != own[name]]
    return ", ".join(f"{name} {there.get(name)} (driver {own[name]})" for name in names)


def _compared(
    name: str, answered: Sequence[tuple[Node, NodeFacts]], problem: Callable[[NodeFacts], str], cure: str
) -> Check:
    wrong = [(node, problem(fact)) for node, fact in answered if problem(fact)]
    if not wrong:
        return Check(name, "ok", f"on {len(answered)} nodes")
    first, text = wrong[0]
    others = f"; also on {named([node for node, _ in wrong[1:]])}" if len(wrong) > 1 else ""
    return Check(name, "wrong", f"{first.address}: {text}{others}", cure)


def _tried(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except UpopError as error:
        # the message ends with its cure
        found, _, cure = str(error).rpartition("; ")
        return Check(name, "wrong", found or cure, cure if found else "")


def _checked_store(experiment: Experiment) -> str:
    store = Store(experiment.store)
    store.check()
    return store.uri


def _opened(experiment: Experiment) -> str:
    prepare(experiment).task()
    return ""


def _places(experiment: Experiment) -> str:
    check_places(experiment)
    return f"{_asked(experiment)}: " + ("the autoscaler may add nodes" if has_autoscaler() else "there is room")


def _asked(experiment: Experiment) -> str:
    replica = experiment.replica
    return f"{replica.workers} x ({replica.cpus_per_worker:g} CPU, {replica.gpus_per_worker:g} GPU)"


def _addresses(experiment: Experiment) -> str:
    """Content addresses of what a point starts from, which differ when a file does."""
    try:
        return " ".join(content_addresses(experiment))
    except UpopError as error:
        return str(error)


def _store_problem(experiment: Experiment, seen: str) -> str:
    try:
        store = Store(experiment.store)
        store.check()
        return "" if store.exists(seen) else f"{store.uri} is another folder there than the driver's"
    except UpopError as error:
        return str(error)
