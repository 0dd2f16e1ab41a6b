"""What a cluster checks of an object, offline."""

import copy
import functools
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import yaml

KUBERNETES = "1.34"


def errors(manifest: dict[str, Any], resources: Path) -> list[str]:
    """Returns what is wrong with an object, by Kubernetes' own schemas and a directory of others'."""
    groups = ("serving.kserve.io/", "trainer.kubeflow.org/", "monitoring.coreos.com/")
    if manifest["apiVersion"].startswith(groups):
        return _by_custom_resource(manifest, resources)
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'/'.join(map(str, error.path))}: {error.message}"]
    return []


def _by_custom_resource(manifest: dict[str, Any], resources: Path) -> list[str]:
    group, version = manifest["apiVersion"].split("/")
    validator = _validator(resources / f"{group}_{manifest['kind'].lower()}s.yaml", version)
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator.iter_errors(manifest)
    ]


@functools.cache
def _validator(file: Path, version: str) -> jsonschema_rs.Draft202012Validator:
    # By libyaml: these are megabytes.
    versions = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    (served,) = (one for one in versions if one["name"] == version)
    schema = _strict(served["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {}
    return jsonschema_rs.validator_for(schema)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a cluster's schema with what a cluster would drop without a word made an error."""
    made = {
        key: _strict(value) if isinstance(value, dict) else value for key, value in schema.items()
    }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        made["additionalProperties"] = False
    return made


def unrestricted(pod: dict[str, Any]) -> list[str]:
    """Returns what of a pod's specification the restricted Pod Security Standard forbids.

    See https://kubernetes.io/docs/concepts/security/pod-security-standards/.
    """
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
        "projected", "secret",
    }  # fmt: skip
    for volume in pod.get("volumes", []):
        found += [f"volume {key}" for key in set(volume) - {"name"} - allowed]
    own = pod.get("securityContext", {})
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = {**own, **container.get("securityContext", {})}
        name = container["name"]
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: privileges")
        capabilities = context.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"]:
            found.append(f"{name}: capabilities")
        if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append(f"{name}: added capabilities")
        if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
            found.append(f"{name}: root")
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append(f"{name}: seccomp")
        if any(port.get("hostPort") for port in container.get("ports", [])):
            found.append(f"{name}: host port")
    return found


def without(manifest: dict[str, Any], *path: str) -> dict[str, Any]:
    """Returns a copy that lacks a field."""
    made = copy.deepcopy(manifest)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return made
