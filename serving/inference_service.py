"""One InferenceService, through Kubernetes' API: read, applied by a field manager of its own, asked."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

import tenacity
import urllib3
import yaml
from kubernetes import client, config

from components.errors import UserError
from serving.known_answers import Unfit

Manifest: TypeAlias = dict[str, Any]

FIELD_MANAGER = "cxrflow"
# Which version of the model a pod has.
VERSION_LABEL = "cxrflow/version"
CONTAINER_PORT = 8080

_GROUP = "/apis/serving.kserve.io/v1beta1"
_SECONDS = 60
_ATTEMPTS = 6
_TRANSIENT = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class Conflict(Exception):
    """The object is not what it was when it was read; read it again."""


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
        self._api = api or _connected()

    def __str__(self) -> str:
        return f"InferenceService {self.namespace}/{self.name}"

    def template(self) -> Manifest:
        """Returns what a platform team wants of it: see manifests/base/inference-service.yaml.

        Raises:
          UserError: the ConfigMap `<name>-inference-service` is not there or not readable.
        """
        name = f"{self.name}-inference-service"
        held = self._call("GET", f"{self._core}/configmaps/{name}")
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
        found: Manifest | None = self._call("GET", self._path)
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
        done = self._call(
            "PATCH", self._path, manifest, "application/apply-patch+yaml", FIELD_MANAGER
        )
        if done is None:
            raise Conflict
        made: Manifest = done
        return made

    def delete(self) -> None:
        """Deletes the object, if it is there."""
        self._call("DELETE", self._path)

    def pods(self, version: str) -> list[Pod]:
        """Returns the pods that have a version of the model."""
        selector = f"serving.kserve.io/inferenceservice={self.name},{VERSION_LABEL}={version}"
        found = self._call("GET", f"{self._core}/pods?labelSelector={selector}") or {"items": []}
        return [_pod(one) for one in found["items"]]

    def get(self, pod: str, path: str) -> str:
        """Returns what a pod's server answers to a GET, e.g. of `/metrics`, through the API server."""
        return str(self._call("GET", self._proxy(pod, path), raw=True) or "")

    def post(self, pod: str, path: str, body: Mapping[str, Any]) -> Any:
        """Returns what a pod's server answers to a POST of JSON, through the API server.

        Raises:
          Unfit: it is no success, or no JSON.
        """
        answer = self._call("POST", self._proxy(pod, path), dict(body), raw=True)
        try:
            return json.loads(answer or "")
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

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: _is_transient(error)),
        wait=tenacity.wait_exponential_jitter(initial=0.2, max=10),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        retry_error_callback=lambda state: _give_up(state),
    )
    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        manager: str = "",
        *,
        raw: bool = False,
    ) -> Any:
        """Returns the answer, as text where `raw`, or None where there is no such thing."""
        try:
            answer = self._api.call_api(
                path,
                method,
                query_params=[("fieldManager", manager)] if manager else [],
                header_params={
                    "Accept": "*/*" if raw else "application/json",
                    "Content-Type": kind,
                },
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=False,
                _preload_content=False,
                _request_timeout=_SECONDS,
            )[0].data.decode()
        except client.ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            if error.status == HTTPStatus.CONFLICT and not _is_ownership(error):
                raise Conflict from error
            if error.status in _TRANSIENT:
                raise
            raise _error(self, error, raw) from error
        return answer if raw else json.loads(answer)


def _connected() -> client.ApiClient:
    found: client.ApiClient
    with contextlib.suppress(config.ConfigException):
        config.load_incluster_config()
        return client.ApiClient()
    try:
        found = config.new_client_from_config()
    except config.ConfigException as error:
        raise UserError(
            f"deploy: no cluster is known ({error}); name a kubeconfig in KUBECONFIG, or run in a pod"
        ) from error
    return found


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


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, urllib3.exceptions.HTTPError) or (
        isinstance(error, client.ApiException) and error.status in _TRANSIENT
    )


def _is_ownership(error: client.ApiException) -> bool:
    """Says whether a conflict is that another field manager has a field, rather than of versions."""
    return "conflict with" in _said(error)


def _give_up(state: tenacity.RetryCallState) -> Any:
    assert state.outcome
    error = state.outcome.exception()
    if not _is_transient(error) or error is None:  # type: ignore[arg-type]
        return state.outcome.result()
    if isinstance(error, client.ApiException):
        raise _error(state.args[0], error, bool(state.kwargs.get("raw"))) from error
    raise UserError(
        f"deploy: Kubernetes' API does not answer ({error}); nothing more was changed. Run it again: it "
        "goes on where it was."
    ) from error


def _said(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        body = error.body or error.reason or ""
        return (body.decode(errors="replace") if isinstance(body, bytes) else str(body))[:300]


def _error(service: InferenceService, error: client.ApiException, of_pod: bool) -> UserError:
    denied = error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if of_pod and not denied:
        return Unfit(f"deploy: its server answers {error.status}: {_said(error)}")
    advice = {
        HTTPStatus.UNAUTHORIZED: "the token is missing or has expired: log in again",
        HTTPStatus.FORBIDDEN: "that account may not: see the role in manifests/base/access.yaml",
        HTTPStatus.CONFLICT: "another field manager changed it: take its change back, or put it into "
        "manifests/base/inference-service.yaml",
    }.get(error.status, "nothing more was changed; run it again, it goes on where it was")
    return UserError(
        f"deploy: {service}: Kubernetes answers {error.status}: {_said(error)} ({advice})"
    )
