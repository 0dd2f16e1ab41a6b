"""Asking a model server, as any client would."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from components.errors import UserError
from serving import NAME

_SECONDS = 60


def predict(images: Sequence[Path], url: str, name: str = NAME) -> list[dict[str, Any]]:
    """Sends image files to a KServe endpoint (V1 protocol) and returns its predictions, in order.

    Args:
      images: files of JPEG, PNG, WebP or DICOM.
      url: of the server, e.g. `http://localhost:8080`.
      name: of the model there.

    Returns:
      for each image `label`, `probabilities`, by class, in 0..1, `abstained`, whether it is too unlike
      what was trained on to be answered, and `ood_score`, which is then over 1, `suspect`, whether it
      does not look like a frontal chest X-ray, and `reasons` for that.

    Raises:
      UserError: a file cannot be read, the server is not there or refuses.
    """
    instances = [{"image_bytes": {"b64": _base64(image)}} for image in images]
    address = f"{url.rstrip('/')}/v1/models/{name}:predict"
    try:
        answer = httpx.post(address, json={"instances": instances}, timeout=_SECONDS)
    except httpx.HTTPError as error:
        raise UserError(
            f"predict: no answer from {address} ({error}). Start a server with `cxrflow serve`."
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise UserError(f"predict: {address} answers {answer.status_code}: {_reason(answer)}")
    return list(answer.json()["predictions"])


def _base64(image: Path) -> str:
    try:
        return base64.b64encode(image.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"predict: cannot read {image}: {error.strerror}") from error


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
