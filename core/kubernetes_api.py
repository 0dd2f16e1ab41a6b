"""Kubernetes' API, asked again while it is busy or away, with errors that say what to do."""

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
# What asking again may mend.
TRANSIENT = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class Conflict(Exception):
    """The object is not what it was when it was read, or is there already; read it again."""


class Refused(UserError):
    """The API answers with an error that asking again does not mend.

    Attributes:
      status: of HTTP.
      said: what the API says.
    """

    def __init__(self, status: int, said: str, message: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said

    @property
    def denied(self) -> bool:
        """Says whether it is this account that may not."""
        return self.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class KubernetesApi:
    """The API, asked about one thing."""

    def __init__(self, step: str, what: str, manifests: str, api: client.ApiClient | None) -> None:
        """Connects.

        Args:
          step, what: begin every error: `step: what: ...`.
          manifests: the directory that sets it up, with the role that is needed.
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
        """Asks, again for a while where the API is busy or away, so that it must do no harm twice.

        Args:
          method, path, body: of HTTP.
          kind: the body's content type.
          manager: the field manager of an apply.
          raw: whether the answer is text rather than JSON.

        Returns:
          the answer, or None where there is no such thing.

        Raises:
          Conflict: see there.
          Refused: see there.
          UserError: there was no answer.
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
        advice = {
            HTTPStatus.UNAUTHORIZED: "the token is missing or has expired: log in again",
            HTTPStatus.FORBIDDEN: "that account may not: see the role in "
            f"{self._manifests}/access.yaml",
            HTTPStatus.CONFLICT: "another field manager changed it: take its change back, or put it "
            f"into {self._manifests}",
        }.get(error.status, "nothing more was changed; run it again, it goes on where it was")
        said = _said(error)
        return Refused(
            error.status,
            said,
            f"{self._step}: {self._what}: Kubernetes answers {error.status}: {said} ({advice})",
        )

    def _give_up(self, outcome: tenacity.Future) -> Any:
        error = outcome.exception()
        if error is None or not _is_transient(error):
            return outcome.result()
        if isinstance(error, client.ApiException):
            raise self._refused(error) from error
        raise UserError(
            f"{self._step}: Kubernetes' API does not answer ({error}); nothing more was changed. Run it "
            "again: it goes on where it was."
        ) from error


def _connected(step: str) -> client.ApiClient:
    found: client.ApiClient
    with contextlib.suppress(config.ConfigException):
        config.load_incluster_config()
        return client.ApiClient()
    try:
        found = config.new_client_from_config()
    except config.ConfigException as error:
        raise UserError(
            f"{step}: no cluster is known ({error}); name a kubeconfig in KUBECONFIG, or run in a pod"
        ) from error
    return found


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, urllib3.exceptions.HTTPError) or (
        isinstance(error, client.ApiException) and error.status in TRANSIENT
    )


def _is_ownership(error: client.ApiException) -> bool:
    """Says whether a conflict is that another field manager has a field, rather than of versions."""
    return "conflict with" in _said(error)


def _said(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        body = error.body or error.reason or ""
        return (body.decode(errors="replace") if isinstance(body, bytes) else str(body))[:300]
