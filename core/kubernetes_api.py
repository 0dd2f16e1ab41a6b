"""Kubernetes' API, with retries while it is busy or unreachable, and errors that say what to do."""

import contextlib
import json
from http import HTTPStatus
from typing import Any

import tenacity
import urllib3
from kubernetes import client, config

from core.errors import UserError

_SECONDS = 60
_ATTEMPTS = 6
# Worth a retry.
TRANSIENT = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# How a Status begins if the API's proxy cannot reach a pod.
_UNREACHED = "error trying to reach service"


class Conflict(Exception):
    """The object has changed since it was read, or exists already: read it again."""


class Refused(UserError):
    """The API answers with an error that a retry does not fix.

    Attributes:
      status: of HTTP.
      said: what the API says.
    """

    def __init__(self, status: int, said: str, message: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said

    @property
    def denied(self) -> bool:
        """Whether this account lacks the permission."""
        return self.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Unavailable(UserError):
    """The API does not answer, is busy or fails, after several attempts: a later one may succeed."""


class KubernetesApi:
    """The API, for calls about one object."""

    def __init__(self, step: str, what: str, manifests: str, api: client.ApiClient | None) -> None:
        """Connects.

        Args:
          step, what: begin every error: `step: what: ...`.
          manifests: the directory that sets the object up, with the role that is needed.
          api: by default that of the kubeconfig, or in a pod that of its cluster.

        Raises:
          UserError: there is neither.
        """
        self._step, self._what, self._manifests = step, what, manifests
        self._api = api or _connected(step)

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: _is_transient(error)),
        wait=tenacity.wait_exponential_jitter(initial=0.2, max=10),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        retry_error_callback=lambda state: state.args[0]._give_up(state.outcome),
    )
    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        manager: str = "",
        *,
        raw: bool = False,
    ) -> Any:
        """Sends a request, with retries while the API is busy or unreachable: it must be safe to repeat.

        Args:
          method, path, body: of HTTP.
          kind: the body's content type.
          manager: the field manager of an apply.
          raw: whether the answer is text rather than JSON.

        Returns:
          the answer, or None for 404.

        Raises:
          Conflict: the object has changed since it was read.
          Refused: the API answers with another error, or a pod behind the API's proxy does.
          Unavailable: the API does not answer, is busy or fails.
        """
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
            if error.status in TRANSIENT:
                raise
            raise self._refused(error) from error
        return answer if raw else json.loads(answer)

    def _refused(self, error: client.ApiException) -> Refused:
        return Refused(error.status, _said(error), self._in_words(error))

    def _in_words(self, error: client.ApiException) -> str:
        said = _said(error)
        return (
            f"{self._step}: {self._what}: Kubernetes answers {error.status}: {said} "
            f"({self._advice(error.status, said)})"
        )

    def _advice(self, status: int, said: str) -> str:
        # Webhooks and quotas also answer 403, so the words decide whether a role is missing.
        if said.startswith("admission webhook"):
            return f"a webhook of the cluster rejects the object: correct it in {self._manifests}"
        if status == HTTPStatus.UNAUTHORIZED:
            return "the token is missing or has expired: log in again"
        if status == HTTPStatus.FORBIDDEN and " cannot " in said:
            return f"the account lacks a permission: see the role in {self._manifests}/access.yaml"
        if status == HTTPStatus.FORBIDDEN:
            return "the cluster's admission control rejects the object"
        if status == HTTPStatus.CONFLICT:
            return (
                "another field manager owns these fields: undo its change, or make the same change in "
                f"{self._manifests}"
            )
        return "nothing more was changed; run it again to continue"

    def _give_up(self, outcome: tenacity.Future) -> Any:
        error = outcome.exception()
        if error is None or not _is_transient(error):
            return outcome.result()
        if isinstance(error, client.ApiException):
            if _is_of_pod(error):
                raise self._refused(error) from error
            raise Unavailable(self._in_words(error)) from error
        raise Unavailable(
            f"{self._step}: Kubernetes' API does not answer ({error}); nothing more was changed. Run it "
            "again to continue."
        ) from error


def _connected(step: str) -> client.ApiClient:
    with contextlib.suppress(config.ConfigException):
        config.load_incluster_config()
        return client.ApiClient()
    try:
        connected: client.ApiClient = config.new_client_from_config()
    except config.ConfigException as error:
        raise UserError(
            f"{step}: no cluster is known ({error}); set KUBECONFIG to a kubeconfig, or run in a pod"
        ) from error
    return connected


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, urllib3.exceptions.HTTPError) or (
        isinstance(error, client.ApiException) and error.status in TRANSIENT
    )


def _is_ownership(error: client.ApiException) -> bool:
    """Returns whether another field manager owns a field; otherwise the version is outdated.

    The API names the cause of each field; the message differs between one and several conflicts.
    """
    causes = (_status(error).get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "FieldManagerConflict" for cause in causes)


def _is_of_pod(error: client.ApiException) -> bool:
    """Returns whether a pod behind the API's proxy is at fault: it answers with an error, or not at all.

    The API's own errors are Status objects, and those of a gateway before it are no JSON.
    """
    if status := _status(error):
        return str(status.get("message", "")).startswith(_UNREACHED)
    return isinstance(_parsed(error), dict)


def _said(error: client.ApiException) -> str:
    status = _status(error)
    if "message" in status:
        return " ".join(str(status["message"]).split())
    body = error.body or error.reason or ""
    return (body.decode(errors="replace") if isinstance(body, bytes) else str(body))[:300]


def _status(error: client.ApiException) -> dict[str, Any]:
    """Returns the API's Status object; empty if the answer has none."""
    answer = _parsed(error)
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _parsed(error: client.ApiException) -> Any:
    try:
        return json.loads(error.body)
    except (TypeError, ValueError):
        return None
