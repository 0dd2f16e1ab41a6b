"""The verdict on a version: whether it can be trusted. The gate's decision, published with it, has it."""

from collections.abc import Mapping
from typing import Any

from core.artifacts import Verdict

_NOT_AUDITED = {
    "verdict": Verdict.UNPROVEN.value,
    "reasons": ["it was published without a verdict"],
}


def of_winner(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the verdict on a decision's winner.

    Args:
      decision: see `components.trust.gate.decide`.

    Returns:
      `verdict`, a `core.artifacts.Verdict`, and `reasons`, at most three short ones, the worst first. A
      version that an earlier release published has no verdict, so it is unproven.

    Raises:
      ValueError: the decision has no winner.
    """
    (row,) = (row for row in decision["candidates"] if row["recipe"] == decision["winner"])
    return dict(row.get("trust") or _NOT_AUDITED)


def in_words(trust: Mapping[str, Any]) -> str:
    """Returns a verdict with its reasons as one line."""
    return ": ".join(filter(None, (str(trust["verdict"]), "; ".join(trust["reasons"]))))


def rank(trust: Mapping[str, Any]) -> int:
    """Returns how far a verdict is trusted: 0 for `not trusted`, 1 for `unproven`, 2 for `trusted`."""
    return list(Verdict).index(Verdict(trust["verdict"]))
