"""Checks a server of a version against known answers, before the version gets traffic.

Evaluation keeps some of its images with the model's answers. If a server gives other answers, is slow or does
not answer, it does not run what was evaluated: another library, a damaged file, or too small a machine.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from core.artifacts import KNOWN_ANSWERS
from core.errors import UserError
from core.files import read_json

# Of a probability: processors round differently, and a GPU's bfloat16 more so.
TOLERANCE = 0.02
SLOWEST_SECONDS = 5.0


class Unfit(UserError):
    """The version itself is at fault, not the cluster or the user."""


# Maps the body of a V1 request to its answer.
Ask: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def read(version: Path) -> list[dict[str, Any]]:
    """Returns the known answers of a version: rows of `id`, `image` (base64) and `probabilities`, by class.

    Raises:
      UserError: the version has none.
    """
    try:
        answers: list[dict[str, Any]] = read_json(version / KNOWN_ANSWERS)
    except FileNotFoundError as error:
        raise UserError(
            f"{version} has no {KNOWN_ANSWERS}: an earlier release published it. Train again."
        ) from error
    return answers


def check(ask: Ask, answers: list[dict[str, Any]], who: str) -> str:
    """Sends the known images, after one request to warm up, and compares the answers.

    Args:
      ask: sends a V1 request.
      answers: see `read`.
      who: names the server in messages.

    Returns:
      a sentence about the answers.

    Raises:
      Unfit: an answer is wrong, missing or slow.
    """
    body = [{"instances": [{"image_bytes": {"b64": row["image"]}}]} for row in answers]
    ask(body[0])
    slowest = furthest = 0.0
    for row, request in zip(answers, body, strict=True):
        began = time.monotonic()
        predictions = ask(request).get("predictions", [])
        seconds = time.monotonic() - began
        if len(predictions) != 1:
            raise Unfit(f"check: {who} gives no answer for {row['id']}")
        given = predictions[0]["probabilities"]
        if set(given) != set(row["probabilities"]):
            raise Unfit(
                f"check: {who} has the classes {', '.join(given)}, not {', '.join(row['probabilities'])}"
            )
        distance = max(abs(given[name] - share) for name, share in row["probabilities"].items())
        if not distance <= TOLERANCE:
            raise Unfit(
                f"check: {who} answers {row['id']} with {_in_words(given)}; evaluation had "
                f"{_in_words(row['probabilities'])}"
            )
        if seconds > SLOWEST_SECONDS:
            raise Unfit(
                f"check: {who} took {seconds:.1f} s for {row['id']}, more than {SLOWEST_SECONDS:g} s"
            )
        slowest, furthest = max(slowest, seconds), max(furthest, distance)
    return (
        f"{len(answers)} known images answered by {who}, at most {furthest:.4f} off; latency at most "
        f"{1000 * slowest:.0f} ms"
    )


def _in_words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
