"""Explains a run that deploys nothing: why each candidate was rejected, and what the user can try."""

import math
from collections.abc import Mapping
from typing import Any

from components.trust.rules import LOW
from core.artifacts import Trust, Verdict

# Of a recall that is proposed as a threshold: rounded down to a step; below the least it would be useless.
_STEP, _LEAST = 0.05, 0.3


def refusals(decision: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns each rejected candidate with the reasons, in one line.

    Args:
      decision: see `components.trust.gate.decide`.
    """
    return [
        (row["recipe"], "; ".join(row["reasons"]))
        for row in decision["candidates"]
        if not row["passed"]
    ]


def next_steps(decision: Mapping[str, Any], gate: str) -> list[tuple[str, str]]:
    """Returns what the user can try after a run that rejected all candidates, each with the option to type.

    Args:
      decision: see `components.trust.gate.decide`.
      gate: as the user typed it.
    """
    nearest = min(decision["candidates"], key=lambda row: len(row["reasons"]))
    steps = []
    lower = {
        f"{check['class']}{suffix}": math.floor(check["recall"][figure] / _STEP) * _STEP
        for check in nearest["checks"]
        for figure, threshold, suffix in (("value", "threshold", ""), ("low", "threshold_low", LOW))
        if check["recall"][figure] is not None
        and check[threshold] is not None
        and _LEAST <= check["recall"][figure] < check[threshold]
    }
    if lower:
        steps.append(("accept a lower recall", f"--gate {_with(gate, lower)}"))
    untrusted = nearest["trust"] and nearest["trust"]["verdict"] != Verdict.TRUSTED
    if decision["trust"] == Trust.ENFORCE and untrusted:
        steps.append(("deploy it with its verdict", "--trust flag"))
    if any(not check["passed"] for check in nearest["checks"]):
        name, _, variant = nearest["recipe"].rpartition("+")
        if variant == "quick":
            steps.append(("train the paper's network", f"--recipes {name}, without --quick"))
        else:
            steps.append(("train longer", f"--epochs {nearest['recipe']}=NUMBER"))
    steps.append(("add another source", "--source NAME=SPEC (see docs/data.md)"))
    published, *variants = nearest["recipe"].removesuffix("+quick").split("+")
    if "lungs" not in variants:
        shown = "+".join([published, "lungs", *variants])
        steps.append(("show the network the lungs alone", f"--recipes {shown}"))
    return steps


def _with(gate: str, changes: Mapping[str, float]) -> str:
    parts = [part for part in gate.split(",") if part.partition("=")[0].strip() not in changes]
    return ",".join([*parts, *(f"{name}={value:g}" for name, value in changes.items())])
