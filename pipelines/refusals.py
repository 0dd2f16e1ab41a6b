"""Explains a run that deploys nothing: why each candidate was rejected, and what the user can try."""

import math
from collections.abc import Mapping
from typing import Any

from components.trust.rules import LOW, Outcome
from core.artifacts import Trust, Verdict
from core.errors import UserError
from serving import verdict
from training.recipes import QUICK, VARIANTS, recipe_named

# Rules that a model breaks by looking beyond the lungs, and what to try, by variant.
_BEYOND_LUNGS = {"follows-lungs", "lung-free-explained"}
_AGAINST_SHORTCUTS = {
    "mixed-surroundings": "mix the surroundings in training",
    "lungs": "show the network the lungs alone",
}
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
    enforced = decision["trust"] == Trust.ENFORCE
    nearest = min(decision["candidates"], key=lambda row: _faults(row, enforced=enforced))
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
    if enforced and _is_untrusted(nearest) and not _is_outranked(nearest):
        steps.append(("deploy it with its verdict", "--trust flag"))
    if any(not check["passed"] for check in nearest["checks"]):
        name, _, variant = nearest["recipe"].rpartition("+")
        if variant == QUICK:
            steps.append(("train the paper's network", f"--recipes {name}, without --quick"))
        else:
            steps.append(("train longer", f"--epochs {nearest['recipe']}=NUMBER"))
    steps.append(("add another source", "--source NAME=SPEC (see docs/data.md)"))
    if (enforced and _is_untrusted(nearest)) or _is_outranked(nearest):
        steps += _against_shortcuts(nearest)
    return steps


def _is_untrusted(row: Mapping[str, Any]) -> bool:
    return bool(row["trust"]) and row["trust"]["verdict"] != Verdict.TRUSTED


def _is_outranked(row: Mapping[str, Any]) -> bool:
    """Returns whether the champion is trusted more."""
    champion = row["duel"]
    if not (row["trust"] and champion):
        return False
    return verdict.rank(row["trust"]) < verdict.rank(champion["trust"])


def _faults(row: Mapping[str, Any], *, enforced: bool) -> int:
    """Returns how many things a candidate lacks; its verdict is one of them, however many reasons it has."""
    of_trust = int(_is_outranked(row))
    if enforced and _is_untrusted(row):
        of_trust += len(row["trust"]["reasons"])
    return len(row["reasons"]) - of_trust + min(of_trust, 1)


def _against_shortcuts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    broken = {rule["name"] for rule in row["rules"] if rule["outcome"] == Outcome.BROKEN}
    if not broken & _BEYOND_LUNGS:
        return []
    published, *has = row["recipe"].removesuffix(f"+{QUICK}").split("+")
    steps = []
    for variant, what in _AGAINST_SHORTCUTS.items():
        name = "+".join([published, *(each for each in VARIANTS if each in (*has, variant))])
        try:
            recipe_named(name)
        except UserError:  # a frozen base cannot be trained on images that change
            continue
        if variant not in has:
            steps.append((what, f"--recipes {name}"))
    return steps


def _with(gate: str, changes: Mapping[str, float]) -> str:
    parts = [part for part in gate.split(",") if part.partition("=")[0].strip() not in changes]
    return ",".join([*parts, *(f"{name}={value:g}" for name, value in changes.items())])
