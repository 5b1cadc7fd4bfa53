"""What KubeRay 1.6 accepts in a RayCluster and a RayJob.

Written after its API reference (ray.io/v1, KubeRay v1.6.2), because no package ships the CRDs: fields that these
manifests may use, unknown ones refused. Pod templates and whatever else is Kubernetes' own are checked with the schemas
of Kubernetes itself, from the package kubernetes-validate.
"""

import json
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

KUBERNETES = "v1.37.0-local-strict"
_CORE = "/api/_definitions.json#/$defs/io.k8s.api.core.v1"
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _core(kind: str) -> dict[str, str]:
    return {"$ref": f"{_CORE}.{kind}"}


_CREDENTIAL = _object([], value={"type": "string"}, valueFrom=_core("EnvVarSource"))
_WORKERS = _object(
    ["groupName", "template"],
    groupName={"type": "string"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts={"type": "integer", "minimum": 1},
    rayStartParams=_TEXTS,
    template=_core("PodTemplateSpec"),
)
_CLUSTER_SPEC = _object(
    ["headGroupSpec"],
    rayVersion={"type": "string"},
    authOptions=_object([], mode={"enum": ["disabled", "token"]}, secretName={"type": "string"}),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_object(
        [],
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds={"type": "integer"},
        resources=_core("ResourceRequirements"),
    ),
    gcsFaultToleranceOptions=_object(
        ["redisAddress"],
        redisAddress={"type": "string"},
        redisUsername=_CREDENTIAL,
        redisPassword=_CREDENTIAL,
        externalStorageNamespace={"type": "string"},
    ),
    headGroupSpec=_object(
        ["template"],
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        enableIngress={"type": "boolean"},
        rayStartParams=_TEXTS,
        template=_core("PodTemplateSpec"),
    ),
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
_JOB_SPEC = _object(
    [],
    entrypoint={"type": "string"},
    runtimeEnvYAML={"type": "string"},
    backoffLimit=_COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    rayClusterSpec=_CLUSTER_SPEC,
)
_SPECS = {"RayCluster": _CLUSTER_SPEC, "RayJob": _JOB_SPEC}


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest of KubeRay, each with its path."""
    kind = manifest.get("kind", "")
    schema = _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata={"$ref": "/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
        spec=_SPECS[kind],
    )
    # the definitions refer to themselves by this address
    validator = Draft202012Validator(schema, registry=Registry().with_resource("/api/_definitions.json", _kubernetes()))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def _kubernetes() -> Resource[Any]:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES
    return Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
