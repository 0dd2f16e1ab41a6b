"""An InferenceService and its pods, routes and state, through Kubernetes' API.

Objects are applied server-side, by our own field manager, which never forces.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from kubernetes import client

from core.errors import UserError
from core.kubernetes_api import KubernetesApi, Refused
from serving.cluster.known_answers import Unfit

Manifest: TypeAlias = dict[str, Any]

FIELD_MANAGER = "cxrflow"
# Of a pod: its version of the model.
VERSION_LABEL = "cxrflow/version"
# Annotation of a pod with the origin of its version. It never changes while the version is served.
RELEASE = "cxrflow/release"
# And the verdict on it, in words.
TRUST = "cxrflow/trust"
CONTAINER_PORT = 8080

# A resourceVersion that no object has: an apply with it creates the object or fails.
NEVER = "1"

_CONTAINER = "kserve-container"
_SERVICES = ("/apis/serving.kserve.io/v1beta1", "inferenceservices")
# What KServe makes of an InferenceService: the API group, and the kind's name there.
ROUTES = ("/apis/gateway.networking.k8s.io/v1", "httproutes")
AUTOSCALERS = ("/apis/autoscaling/v2", "horizontalpodautoscalers")


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that is running or starting.

    Attributes:
      name: its name.
      uid: its identity, because names are reused.
      ready: whether it is ready.
      restarts: how often its server was restarted.
      trouble: why it is not ready, or why its server was restarted, as Kubernetes says it.
    """

    name: str
    uid: str
    ready: bool
    restarts: int
    trouble: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What an InferenceService itself says of its versions.

    Attributes:
      version, uri: of the predictor; empty if this program did not make it. In Standard mode this is the
        stable version, in Knative mode the newest.
      beside: the version of the canary, in Standard mode.
      percent: the canary's share of the traffic, from 0 to 100; None: there is no canary.
      replicas: the canary's pods.
    """

    version: str
    uri: str
    beside: str | None
    percent: int | None
    replicas: int


def shown(manifest: Manifest) -> Shown:
    """Returns what an InferenceService says of its versions, as applied or as read."""
    predictor = manifest["spec"]["predictor"]
    canary = (manifest["spec"].get("canary") or [None])[0]
    percent = canary["trafficPercent"] if canary else predictor.get("canaryTrafficPercent")
    return Shown(
        version=(predictor.get("labels") or {}).get(VERSION_LABEL, ""),
        uri=(predictor.get("model") or {}).get("storageUri", ""),
        beside=(canary["predictor"].get("labels") or {}).get(VERSION_LABEL) if canary else None,
        percent=percent,
        replicas=canary["predictor"].get("minReplicas", 1) if canary else 1,
    )


class InferenceService:
    """An InferenceService of KServe, which may not exist yet.

    Every call is retried while the API is busy or unreachable; all of them are safe to repeat.
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
        self.state_name = f"{name}-rollout"
        self._api = KubernetesApi("deploy", str(self), "manifests/base", api)

    def __str__(self) -> str:
        return f"InferenceService {self.namespace}/{self.name}"

    def template(self) -> Manifest:
        """Returns the platform team's part of it: see manifests/base/inference-service.yaml.

        Raises:
          UserError: the ConfigMap `<name>-inference-service` does not exist or is not readable.
        """
        name = f"{self.name}-inference-service"
        held = self._api.call("GET", f"{self._core}/configmaps/{name}")
        try:
            template: Manifest = yaml.safe_load(held["data"]["inference-service.yaml"])
        except (TypeError, KeyError, yaml.YAMLError) as error:
            raise UserError(
                f"deploy: there is no readable ConfigMap {name} in namespace {self.namespace}; apply an "
                "overlay: kubectl apply -k manifests/overlays/kind"
            ) from error
        return template

    def read(self) -> Manifest | None:
        """Returns the object, or None."""
        service: Manifest | None = self._api.call("GET", self._path(_SERVICES, self.name))
        return service

    def apply(self, manifest: Manifest) -> Manifest:
        """Applies all fields that this field manager wants; fields that are left out are removed.

        Args:
          manifest: with `metadata.uid` and `metadata.resourceVersion` of the object that was read as
            preconditions, or with `NEVER`, to create the object.

        Returns:
          the object after the change.

        Raises:
          Conflict: it was changed, deleted or created since.
          UserError: another field manager owns a field of it, or the cluster rejects it.
        """
        return self._apply(self._path(_SERVICES, self.name), manifest, "install KServe")

    def delete(self, service: Manifest) -> None:
        """Deletes the object that was read, if it still exists.

        Raises:
          Conflict: it was changed since.
        """
        self.delete_item(_SERVICES, service)

    def read_state(self) -> Manifest | None:
        """Returns the ConfigMap with the state of its rollouts, or None; see `serving.cluster.state`."""
        state: Manifest | None = self._api.call("GET", self._state_path)
        return state

    def apply_state(self, manifest: Manifest) -> Manifest:
        """Applies the ConfigMap with the state of its rollouts; for preconditions and errors see `apply`."""
        return self._apply(self._state_path, manifest, "apply an overlay of manifests")

    def pods(self, version: str) -> list[Pod]:
        """Returns the pods of a version of the model that are running or starting.

        Pods that are being deleted, or that have ended, e.g. because they were evicted, are left out.
        """
        selector = f"serving.kserve.io/inferenceservice={self.name},{VERSION_LABEL}={version}"
        pods = self._listed(f"{self._core}/pods?labelSelector={selector}")
        return [_pod(pod) for pod in pods if _is_alive(pod)]

    def items(self, kind: tuple[str, str]) -> list[Manifest]:
        """Returns the `ROUTES` or `AUTOSCALERS` of the namespace; none if the cluster has no such kind."""
        return self._listed(self._path(kind))

    def delete_item(self, kind: tuple[str, str], item: Manifest) -> None:
        """Deletes an object that `items` returned, if it still exists.

        Raises:
          Conflict: it was changed since.
        """
        meta = item["metadata"]
        known = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": known}
        self._api.call("DELETE", self._path(kind, meta["name"]), options)

    def get(self, pod: str, path: str) -> str:
        """Returns a pod's answer to a GET, e.g. of `/metrics`, through the API server.

        Returns:
          the body; empty if the pod is gone.

        Raises:
          Unfit: the pod's server does not answer, or answers with an error.
        """
        return self._of_pod("GET", self._proxy(pod, path))

    def post(self, pod: str, path: str, body: Mapping[str, Any]) -> Any:
        """Returns a pod's answer to a POST of JSON, through the API server.

        Raises:
          Unfit: the answer is an error, or not JSON.
        """
        answer = self._of_pod("POST", self._proxy(pod, path), dict(body))
        try:
            return json.loads(answer)
        except ValueError as error:
            raise Unfit(f"deploy: {pod} does not answer {path} with JSON: {answer!r}") from error

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    def _path(self, kind: tuple[str, str], name: str = "") -> str:
        return f"{kind[0]}/namespaces/{self.namespace}/{kind[1]}/{name}".rstrip("/")

    @property
    def _state_path(self) -> str:
        return f"{self._core}/configmaps/{self.state_name}"

    def _proxy(self, pod: str, path: str) -> str:
        return f"{self._core}/pods/{pod}:{CONTAINER_PORT}/proxy{path}"

    def _apply(self, path: str, manifest: Manifest, advice: str) -> Manifest:
        kind = "application/apply-patch+yaml"
        applied: Manifest | None = self._api.call("PATCH", path, manifest, kind, FIELD_MANAGER)
        # An apply creates a missing object, so the kind or the namespace is unknown.
        if applied is None:
            raise UserError(
                f"deploy: the cluster knows no {manifest['kind']} in namespace {self.namespace}: {advice}"
            )
        return applied

    def _listed(self, path: str) -> list[Manifest]:
        return list((self._api.call("GET", path) or {"items": []})["items"])

    def _of_pod(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        try:
            return str(self._api.call(method, path, body, raw=True) or "")
        except Refused as error:
            if error.denied:
                raise
            raise Unfit(f"deploy: its server answers {error.status}: {error.said}") from error


def _is_alive(pod: Manifest) -> bool:
    phase = pod.get("status", {}).get("phase")
    return phase not in ("Failed", "Succeeded") and "deletionTimestamp" not in pod["metadata"]


def _pod(pod: Manifest) -> Pod:
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    servers = status.get("containerStatuses", [])
    containers = [*status.get("initContainerStatuses", []), *servers]
    trouble = [
        f"{state.get('reason', '')} {state.get('message', '')}".strip()
        for container in containers
        for state in [container.get("state", {}).get("waiting", {})]
        if state.get("reason") not in (None, "PodInitializing", "ContainerCreating")
    ]
    trouble += [
        f"its last end: {state.get('reason', '')}, exit code {state.get('exitCode')}"
        for container in containers
        for state in [container.get("lastState", {}).get("terminated")]
        if state
    ]
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        trouble.append(scheduled.get("message", ""))
    return Pod(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        ready=conditions.get("Ready", {}).get("status") == "True",
        restarts=sum(
            server.get("restartCount", 0) for server in servers if server.get("name") == _CONTAINER
        ),
        trouble="; ".join(trouble),
    )
