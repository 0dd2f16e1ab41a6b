"""A client of a model server."""

import base64
import functools
import ssl
from pathlib import Path
from typing import Any

import httpx

from core.errors import UserError
from serving import NAME, ports

_SECONDS = 60


class NoServer(UserError):
    """No server answers at the URL."""


@functools.cache
def certificates() -> ssl.SSLContext:
    """Returns the certificates that servers are verified with; httpx itself reads them for each request."""
    return httpx.create_ssl_context()


def predict(image: Path, url: str, name: str = NAME) -> dict[str, Any]:
    """Sends an image file to a KServe endpoint (V1 protocol) and returns its prediction.

    Args:
      image: a JPEG, PNG, WebP or DICOM file.
      url: of the server, e.g. `http://localhost:8080`.
      name: of the model on that server.

    Returns:
      `label`; `probabilities` by class, in 0..1; `abstained`, whether the image is too unlike the training
      images to be answered; `ood_score`, which is then over 1; `suspect`, whether it does not look like a
      frontal chest X-ray, and `reasons` for that; and `trust`, the verdict on the model (see
      `serving.verdict`), which servers of other programs do not give.

    Raises:
      NoServer: there is no server at the URL.
      UserError: the file cannot be read, or the server rejects it or does not answer.
    """
    body = {"instances": [{"image_bytes": {"b64": _base64(image)}}]}
    address = f"{url.rstrip('/')}/v1/models/{name}:predict"
    try:
        # A proxy of the environment cannot reach this machine's own servers.
        elsewhere = not ports.is_loopback(httpx.URL(address).host)
        answer = httpx.post(
            address, json=body, timeout=_SECONDS, trust_env=elsewhere, verify=certificates()
        )
    except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise NoServer(
            f"predict: no answer from {address} ({error}). Start a server with `cxrflow serve`."
        ) from error
    except httpx.HTTPError as error:
        raise UserError(f"no answer from {address} ({error or type(error).__name__})") from error
    if answer.status_code == httpx.codes.BAD_REQUEST:
        raise UserError(_reason(answer))
    if answer.status_code != httpx.codes.OK:
        raise UserError(f"{address} answers {answer.status_code}: {_reason(answer)}")
    try:
        (prediction,) = answer.json()["predictions"]
        return dict(prediction)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{address} is not a model server; it answered: {answer.text[:200]}"
        ) from error


def _base64(image: Path) -> str:
    try:
        return base64.b64encode(image.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]).removeprefix("instances[0] ")
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
