"""One InferenceService and what belongs to it, through Kubernetes' API.

Objects are applied server-side, by a field manager of our own that never forces.
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
CONTAINER_PORT = 8080

# A resourceVersion that no object has: an apply with it creates the object or fails.
NEVER = "1"

_CONTAINER = "kserve-container"
_GROUP = "/apis/serving.kserve.io/v1beta1"
_ROUTES = "/apis/gateway.networking.k8s.io/v1"
_AUTOSCALERS = "/apis/autoscaling/v2"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that is running or starting.

    Attributes:
      name: its name.
      uid: its identity, since a name can come back.
      ready: whether it is ready.
      restarts: how often its server was restarted.
      trouble: why it is not ready, or why its server was restarted, in Kubernetes' words.
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
      version, uri: of the predictor; empty where it was not made by this program. In Standard mode this
        is the stable version, in Knative mode the newest.
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
            made: Manifest = yaml.safe_load(held["data"]["inference-service.yaml"])
        except (TypeError, KeyError, yaml.YAMLError) as error:
            raise UserError(
                f"deploy: there is no readable ConfigMap {name} in namespace {self.namespace}; apply an "
                "overlay: kubectl apply -k manifests/overlays/kind"
            ) from error
        return made

    def read(self) -> Manifest | None:
        """Returns the object, or None."""
        found: Manifest | None = self._api.call("GET", self._path)
        return found

    def apply(self, manifest: Manifest) -> Manifest:
        """Applies all fields that this field manager wants of the object; what is left out is removed.

        Args:
          manifest: with `metadata.uid` and `metadata.resourceVersion` of what was read as preconditions,
            or with `NEVER`, to create the object.

        Returns:
          the object as it is then.

        Raises:
          Conflict: it was changed, deleted or created since.
          UserError: another field manager owns a field of it, or the cluster rejects it.
        """
        return self._apply(self._path, manifest, "install KServe")

    def delete(self, found: Manifest) -> None:
        """Deletes the object that was read, if it is still there.

        Raises:
          Conflict: it was changed since.
        """
        self._delete(self._path, found)

    def read_state(self) -> Manifest | None:
        """Returns the ConfigMap with the state of its rollouts, or None; see `serving.cluster.state`."""
        found: Manifest | None = self._api.call("GET", self._state_path)
        return found

    def apply_state(self, manifest: Manifest) -> Manifest:
        """Applies the ConfigMap with the state of its rollouts; for preconditions and errors see `apply`."""
        return self._apply(self._state_path, manifest, "apply an overlay of manifests")

    def pods(self, version: str) -> list[Pod]:
        """Returns the pods of a version of the model that are running or starting.

        A pod that is being deleted, or that has ended, e.g. because it was evicted, is none.
        """
        selector = f"serving.kserve.io/inferenceservice={self.name},{VERSION_LABEL}={version}"
        found = self._api.call("GET", f"{self._core}/pods?labelSelector={selector}") or {
            "items": []
        }
        return [_pod(one) for one in found["items"] if _is_alive(one)]

    def routes(self) -> list[Manifest]:
        """Returns the HTTPRoutes of the namespace; none where the cluster has no Gateway API."""
        return self._items(f"{_ROUTES}/namespaces/{self.namespace}/httproutes")

    def autoscalers(self) -> list[Manifest]:
        """Returns the HorizontalPodAutoscalers of the namespace."""
        return self._items(f"{_AUTOSCALERS}/namespaces/{self.namespace}/horizontalpodautoscalers")

    def delete_route(self, found: Manifest) -> None:
        """Deletes an HTTPRoute that was read, if it is still there.

        Raises:
          Conflict: it was changed since.
        """
        name = found["metadata"]["name"]
        self._delete(f"{_ROUTES}/namespaces/{self.namespace}/httproutes/{name}", found)

    def delete_autoscaler(self, found: Manifest) -> None:
        """Deletes a HorizontalPodAutoscaler that was read, if it is still there.

        Raises:
          Conflict: it was changed since.
        """
        name = found["metadata"]["name"]
        path = f"{_AUTOSCALERS}/namespaces/{self.namespace}/horizontalpodautoscalers/{name}"
        self._delete(path, found)

    def get(self, pod: str, path: str) -> str:
        """Returns a pod's answer to a GET, e.g. of `/metrics`, through the API server.

        Returns:
          the body; empty where the pod is gone.

        Raises:
          Unfit: the pod's server does not answer, or with an error.
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
            raise Unfit(f"deploy: {pod} answers {path} with no JSON: {answer!r}") from error

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def _path(self) -> str:
        return f"{_GROUP}/namespaces/{self.namespace}/inferenceservices/{self.name}"

    @property
    def _state_path(self) -> str:
        return f"{self._core}/configmaps/{self.state_name}"

    def _proxy(self, pod: str, path: str) -> str:
        return f"{self._core}/pods/{pod}:{CONTAINER_PORT}/proxy{path}"

    def _apply(self, path: str, manifest: Manifest, advice: str) -> Manifest:
        done = self._api.call(
            "PATCH", path, manifest, "application/apply-patch+yaml", FIELD_MANAGER
        )
        if (
            done is None
        ):  # an apply creates what is not there, so the kind or the namespace is unknown
            raise UserError(
                f"deploy: the cluster knows no {manifest['kind']} in namespace {self.namespace}: {advice}"
            )
        made: Manifest = done
        return made

    def _delete(self, path: str, found: Manifest) -> None:
        meta = found["metadata"]
        known = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        self._api.call(
            "DELETE",
            path,
            {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": known},
        )

    def _items(self, path: str) -> list[Manifest]:
        found = self._api.call("GET", path) or {"items": []}
        return list(found["items"])

    def _of_pod(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        try:
            return str(self._api.call(method, path, body, raw=True) or "")
        except Refused as error:
            if error.denied:
                raise
            raise Unfit(f"deploy: its server answers {error.status}: {error.said}") from error


def _is_alive(found: Manifest) -> bool:
    phase = found.get("status", {}).get("phase")
    return phase not in ("Failed", "Succeeded") and "deletionTimestamp" not in found["metadata"]


def _pod(found: Manifest) -> Pod:
    status = found.get("status", {})
    ready = any(
        one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", [])
    )
    containers = [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]
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
    trouble += [
        one.get("message", "")
        for one in status.get("conditions", [])
        if one["type"] == "PodScheduled" and one["status"] == "False"
    ]
    return Pod(
        name=found["metadata"]["name"],
        uid=found["metadata"]["uid"],
        ready=ready,
        restarts=sum(
            one.get("restartCount", 0)
            for one in status.get("containerStatuses", [])
            if one.get("name") == _CONTAINER
        ),
        trouble="; ".join(trouble),
    )
