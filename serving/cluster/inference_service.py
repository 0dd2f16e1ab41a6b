"""One InferenceService, through Kubernetes' API: read, applied by a field manager of its own, asked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from kubernetes import client

from core.errors import UserError
from core.kubernetes_api import Conflict, KubernetesApi, Refused
from serving.cluster.known_answers import Unfit

Manifest: TypeAlias = dict[str, Any]

FIELD_MANAGER = "cxrflow"
# Which version of the model a pod has.
VERSION_LABEL = "cxrflow/version"
CONTAINER_PORT = 8080

_GROUP = "/apis/serving.kserve.io/v1beta1"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod: its name, whether it is ready, and what keeps it from that, as Kubernetes says it."""

    name: str
    ready: bool
    trouble: str


class InferenceService:
    """An InferenceService of KServe, there or not yet.

    Every call is tried again for a while where the API is busy or away; all of them may be repeated.
    """

    def __init__(self, namespace: str, name: str, api: client.ApiClient | None = None) -> None:
        """Names it.

        Args:
          namespace, name: its own.
          api: of Kubernetes; by default that of the kubeconfig, or in a pod that of its cluster.

        Raises:
          UserError: there is neither.
        """
        self.namespace, self.name = namespace, name
        self._api = KubernetesApi("deploy", str(self), "manifests/base", api)

    def __str__(self) -> str:
        return f"InferenceService {self.namespace}/{self.name}"

    def template(self) -> Manifest:
        """Returns what a platform team wants of it: see manifests/base/inference-service.yaml.

        Raises:
          UserError: the ConfigMap `<name>-inference-service` is not there or not readable.
        """
        name = f"{self.name}-inference-service"
        held = self._api.call("GET", f"{self._core}/configmaps/{name}")
        try:
            made: Manifest = yaml.safe_load(held["data"]["inference-service.yaml"])
        except (TypeError, KeyError, yaml.YAMLError) as error:
            raise UserError(
                f"deploy: there is no readable ConfigMap {name} in namespace {self.namespace}; apply an "
                "overlay: kubectl apply -k manifests/overlays/kind"
            ) from error
        return made

    def read(self) -> Manifest | None:
        """Returns the object, or None where there is none."""
        found: Manifest | None = self._api.call("GET", self._path)
        return found

    def apply(self, manifest: Manifest) -> Manifest:
        """Applies all that this field manager wants of the object, server-side.

        Args:
          manifest: with `metadata.resourceVersion` of what was read; without where none was there.

        Returns:
          the object as it is then.

        Raises:
          Conflict: it was changed since, or is gone.
          UserError: another field manager has a field of it, or it is not accepted.
        """
        done = self._api.call(
            "PATCH", self._path, manifest, "application/apply-patch+yaml", FIELD_MANAGER
        )
        if done is None:
            raise Conflict
        made: Manifest = done
        return made

    def delete(self) -> None:
        """Deletes the object, if it is there."""
        self._api.call("DELETE", self._path)

    def pods(self, version: str) -> list[Pod]:
        """Returns the pods that have a version of the model."""
        selector = f"serving.kserve.io/inferenceservice={self.name},{VERSION_LABEL}={version}"
        found = self._api.call("GET", f"{self._core}/pods?labelSelector={selector}") or {
            "items": []
        }
        return [_pod(one) for one in found["items"]]

    def get(self, pod: str, path: str) -> str:
        """Returns what a pod's server answers to a GET, e.g. of `/metrics`, through the API server."""
        return self._of_pod("GET", self._proxy(pod, path))

    def post(self, pod: str, path: str, body: Mapping[str, Any]) -> Any:
        """Returns what a pod's server answers to a POST of JSON, through the API server.

        Raises:
          Unfit: it is no success, or no JSON.
        """
        answer = self._of_pod("POST", self._proxy(pod, path), dict(body))
        try:
            return json.loads(answer)
        except ValueError as error:
            raise Unfit(f"deploy: {pod} answers {path} with no JSON: {answer!r}") from error

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def _path(self) -> str:
        return f"{_GROUP}/namespaces/{self.namespace}/inferenceservices/{self.name}"

    def _proxy(self, pod: str, path: str) -> str:
        return f"{self._core}/pods/{pod}:{CONTAINER_PORT}/proxy{path}"

    def _of_pod(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        try:
            return str(self._api.call(method, path, body, raw=True) or "")
        except Refused as error:
            if error.denied:
                raise
            raise Unfit(f"deploy: its server answers {error.status}: {error.said}") from error


def _pod(found: Manifest) -> Pod:
    status = found.get("status", {})
    ready = any(
        one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", [])
    )
    trouble = [
        f"{state.get('reason', '')} {state.get('message', '')}".strip()
        for container in [
            *status.get("initContainerStatuses", []),
            *status.get("containerStatuses", []),
        ]
        for state in [container.get("state", {}).get("waiting", {})]
        if state.get("reason") not in (None, "PodInitializing", "ContainerCreating")
    ]
    trouble += [
        one.get("message", "")
        for one in status.get("conditions", [])
        if one["type"] == "PodScheduled" and one["status"] == "False"
    ]
    return Pod(name=found["metadata"]["name"], ready=ready, trouble="; ".join(trouble))
