"""The files for clouds, Kubernetes, Slurm and Docker, each checked with the schema or linter of its own tool."""

import copy
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster import kuberay

PROJECT = Path(__file__).parents[2]
CLUSTER = PROJECT / "cluster"
LAUNCHED = ("aws", "gcp", "on-premises")
CONSTRAINTS = dict(line.split("==") for line in (CLUSTER / "constraints.txt").read_text().splitlines() if "==" in line)
PROGRAMS = Path(sys.executable).parent


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def launched(name: str) -> dict[str, Any]:
    """A cluster file as ``ray up`` completes it with its defaults."""
    prepared: dict[str, Any] = prepare_config(documents(CLUSTER / f"{name}.yaml")[0])
    return prepared


@pytest.mark.parametrize("name", LAUNCHED)
def test_rays_validator_accepts_the_cluster_file(name: str) -> None:
    validate_config(launched(name))


def test_rays_validator_would_refuse_a_wrong_one() -> None:
    wrong = copy.deepcopy(launched("aws"))
    wrong["idle_timeout_minutes"] = "ten"
    with pytest.raises(Exception, match="ten"):
        validate_config(wrong)


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_mounted_exists_and_is_all_that_installing_needs(name: str) -> None:
    mounts = launched(name)["file_mounts"]
    project = {local for remote, local in mounts.items() if remote.startswith("~/upop_ray/")}
    assert all((PROJECT / local).exists() for local in project)
    assert project == {"upop_ray", "experiments", "cluster", "pyproject.toml", "README.md", "LICENSE"}


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_node_demands_the_token_and_the_dashboard_stays_on_the_loopback(name: str) -> None:
    config = launched(name)
    starts = [command for kind in ("head", "worker") for command in config[f"{kind}_start_ray_commands"]]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"
    assert all(command.startswith(". ~/upop/environment; ") for command in starts)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in (CLUSTER / "bootstrap.sh").read_text()


@pytest.mark.parametrize("name", LAUNCHED)
def test_no_command_installs_beside_the_pinned_environment(name: str) -> None:
    config = launched(name)
    setups = [c for kind in ("", "head_", "worker_") for c in config[f"{kind}setup_commands"]]
    assert all("~/upop/bin/pip" in command for command in setups if "pip install" in command)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kuberay_accepts_the_manifest(name: str) -> None:
    for document in documents(CLUSTER / "kuberay" / f"{name}.yaml"):
        assert kuberay.problems(document) == []


def test_a_wrong_manifest_is_refused_in_kuberays_part_and_in_kubernetes_own() -> None:
    (manifest,) = documents(CLUSTER / "kuberay" / "raycluster.yaml")
    spec = manifest["spec"]
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["imag"] = "typo"
    spec["workerGroupSpecs"][0]["maxReplica"] = 8
    spec["autoscalerOptions"]["upscalingMode"] = "Fast"
    found = " ".join(kuberay.problems(manifest))
    assert "'imag' was unexpected" in found and "'maxReplica' was unexpected" in found and "'Fast'" in found


def test_kubernetes_accepts_redis() -> None:
    for document in documents(CLUSTER / "kuberay" / "redis.yaml"):
        kubernetes_validate.validate(document, "1.37", strict=True)


def cluster_specs() -> list[dict[str, Any]]:
    (cluster,) = documents(CLUSTER / "kuberay" / "raycluster.yaml")
    (job,) = documents(CLUSTER / "kuberay" / "rayjob.yaml")
    return [cluster["spec"], job["spec"]["rayClusterSpec"]]


def test_pods_get_their_secrets_from_kubernetes_and_no_rights_beyond_their_own() -> None:
    for spec in cluster_specs():
        assert spec["authOptions"] == {"mode": "token", "secretName": "upop-token"}
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            secret = [variable for variable in container["env"] if variable["name"].startswith("AWS_")]
            assert len(secret) == 3 and all("secretKeyRef" in variable["valueFrom"] for variable in secret)
            assert (
                pod["securityContext"]["runAsNonRoot"] and not container["securityContext"]["allowPrivilegeEscalation"]
            )


def test_gpus_scale_from_none_and_the_head_trains_nothing() -> None:
    for spec in cluster_specs():
        (group,) = spec["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        assert spec["enableInTreeAutoscaling"] and group["minReplicas"] == 0 < group["maxReplicas"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize(
    "path", sorted(p for p in CLUSTER.rglob("*") if p.suffix in (".yaml", ".sh") or p.name == "Dockerfile")
)
def test_versions_are_those_of_the_constraints(path: Path) -> None:
    text = path.read_text()
    for name, version in re.findall(r"([\w-]+)==([\d.]+)", text):
        assert CONSTRAINTS[name] == version
    for version in re.findall(r"rayVersion: (\S+)", text):
        assert CONSTRAINTS["ray"] == version
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert all(version == project for version in re.findall(r"upop_ray:([\d.]+)", text))


def test_shellcheck_finds_nothing() -> None:
    scripts = [str(path) for path in CLUSTER.glob("*.sh")]
    assert len(scripts) == 2
    found = subprocess.run([PROGRAMS / "shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_hadolint_finds_nothing() -> None:
    command = [PROGRAMS / "hadolint", CLUSTER / "Dockerfile"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_image_leaves_out_nothing_that_it_copies() -> None:
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (.+) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert ignored[0] == "*"
    assert {name for line in copied for name in line.split()} == {name[1:] for name in ignored if name.startswith("!")}
