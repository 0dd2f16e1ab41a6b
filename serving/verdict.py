"""The verdict on a version: whether it can be trusted. The gate's decision, published with it, has it."""

import json
from collections.abc import Mapping
from typing import Any

from core.artifacts import DECISION, Trust, Verdict
from core.errors import UserError
from core.locations import location, reaching

# Which candidates a run deploys, by `--trust`.
DEPLOYED = {
    Trust.ENFORCE: "enforce: only trusted candidates that pass the gate are deployed",
    Trust.FLAG: "flag: candidates that pass the gate are deployed with their verdict",
}

_NONE = {
    "verdict": Verdict.UNPROVEN.value,
    "reasons": ["it was published without a verdict"],
}


class LessTrusted(UserError):
    """A version is less trusted than the one that is served, so it does not replace it."""


def of_winner(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the verdict on a decision's winner.

    Args:
      decision: see `components.trust.gate.decide`.

    Returns:
      `verdict`, a `core.artifacts.Verdict`, and `reasons`, at most three short ones, the worst first. A
      version that an earlier release published has no verdict: it is unproven, and `rank` puts it last.

    Raises:
      ValueError: the decision has no winner.
    """
    (row,) = (row for row in decision["candidates"] if row["recipe"] == decision["winner"])
    return dict(row.get("trust") or _NONE)


def of_version(version: str) -> dict[str, Any] | None:
    """Returns the verdict on a published version (see `of_winner`), or None if its decision cannot be read.

    Args:
      version: its directory or URL.

    Raises:
      UserError: the object store does not exist or denies access.
    """
    file = location(version) / DECISION
    try:
        with reaching(file):
            text = file.read_text() if file.is_file() else ""
        return of_winner(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def in_words(trust: Mapping[str, Any]) -> str:
    """Returns a verdict with its reasons as one line."""
    return ": ".join(filter(None, (str(trust["verdict"]), "; ".join(trust["reasons"]))))


def rank(trust: Mapping[str, Any]) -> int:
    """Returns how far a version is trusted: 2 if `trusted`, 1 if `unproven`, 0 if `not trusted`.

    It is -1 for a version that was published without a verdict: what was never audited does not outrank what
    was.
    """
    return rank_in_words(in_words(trust))


def rank_in_words(words: str) -> int:
    """Returns the `rank` of a verdict that is given `in_words`; -1 for any other text."""
    known = words.partition(":")[0]
    if words == in_words(_NONE) or known not in list(Verdict):
        return -1
    return list(Verdict).index(Verdict(known))


def require_no_less(ours: str, theirs: str, version: str) -> None:
    """Requires that a version may replace the one that is served.

    Args:
      ours, theirs: the verdicts on the two, in words.
      version: the number of the one that is served.

    Raises:
      LessTrusted: the one that is served is trusted more.
    """
    if rank_in_words(ours) < rank_in_words(theirs):
        raise LessTrusted(
            f"deploy: the model is less trusted than version {version}, which is served and stays: the "
            f"model is {ours}; version {version} is {theirs}"
        )
