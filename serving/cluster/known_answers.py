"""Infrastructure validation: a candidate is asked, by the server that will serve it, what is known.

Evaluation keeps some of its images with the model's answers. A server that answers otherwise, late or
not at all is not the model that was judged: another library, a damaged file, too small a machine.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from core.artifacts import KNOWN_ANSWERS
from core.errors import UserError
from core.files import read_json

# Rows of `id`, `image`, base64 of a JPEG or PNG, and `probabilities`, by class.

# Of a probability: other processors round otherwise, and a GPU's bfloat16 more so.
TOLERANCE = 0.02
SLOWEST_SECONDS = 5.0


class Unfit(UserError):
    """A version itself is at fault, not the cluster or whoever deploys."""


# From the body of a V1 request to its answer.
Ask: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def read(version: Path) -> list[dict[str, Any]]:
    """Returns what evaluation kept for a version of the model.

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
    """Asks for what is known, after one request to warm up.

    Args:
      ask: answers a V1 request.
      answers: see `read`.
      who: is asked, for messages.

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
            raise Unfit(f"check: {who} gives no answer to {row['id']}")
        given = predictions[0]["probabilities"]
        if set(given) != set(row["probabilities"]):
            raise Unfit(
                f"check: {who} tells {', '.join(given)} instead of {', '.join(row['probabilities'])}"
            )
        distance = max(abs(given[name] - share) for name, share in row["probabilities"].items())
        if not distance <= TOLERANCE:
            raise Unfit(
                f"check: {who} answers {row['id']} with {_in_words(given)}, evaluation had "
                f"{_in_words(row['probabilities'])}"
            )
        if seconds > SLOWEST_SECONDS:
            raise Unfit(
                f"check: {who} took {seconds:.1f} s for {row['id']}, more than {SLOWEST_SECONDS:g} s"
            )
        slowest, furthest = max(slowest, seconds), max(furthest, distance)
    return (
        f"{len(answers)} known images answered by {who}, at most {furthest:.4f} off and "
        f"{1000 * slowest:.0f} ms late"
    )


def _in_words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
