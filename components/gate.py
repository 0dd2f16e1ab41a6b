"""Step `gate`: which candidate may be deployed, and why. What a gate rule means is decided here."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfp import dsl

from components.errors import UserError
from components.files import read_json, write_json
from components.labels import COVID
from components.progress import logger
from components.settings import DEFAULT, parse_numbers
from components.step import data_step
from training import metrics
from training.recipes import RECIPES

GATE = "covid=0.9,default=0.7"

DEPLOY, KEEP = "deploy", "keep"


def parse(text: str) -> dict[str, float]:
    """Reads a gate as written on a command line.

    Args:
      text: `class=threshold` with commas between, e.g. `covid=0.9,default=0.7`; thresholds are
        recalls in 0..1, and `default` is for every class that is not named.

    Returns:
      thresholds by class, always with `default`, which is that of `GATE` where it is not given.

    Raises:
      UserError: the text cannot be read so, names a class that no recipe has, or no recall.
    """
    thresholds = {DEFAULT: parse_numbers("gate", GATE)[DEFAULT], **parse_numbers("gate", text)}
    classes = {name for recipe in RECIPES.values() for name in recipe.classes}
    for name, threshold in thresholds.items():
        if not 0 <= threshold <= 1:
            raise UserError(f"gate: {name}={threshold:g} in {text!r} is no recall between 0 and 1")
        if name not in (DEFAULT, *classes):
            raise UserError(
                f"gate: no recipe has a class {name!r}; there are {', '.join(sorted(classes))} and "
                f"{DEFAULT!r} for all others"
            )
    return thresholds


def decide(candidates: Sequence[Mapping[str, Any]], gate: Mapping[str, float]) -> dict[str, Any]:
    """Decides which candidate is deployed.

    A candidate passes if its recall on the test split reaches the threshold in every one of its
    classes, and if it tells every class that the gate names. Of those that pass, the winner is the
    one with the highest recall of covid, then with the highest macro-F1, then the first.

    Args:
      candidates: the metrics of `evaluate`.
      gate: see `parse`.

    Returns:
      `winner`, a recipe's name or None; `reason`, a sentence; `gate`; and `candidates`, a row each:
      `recipe`, `passed`, `reasons` (why not), `macro_f1`, `starting_point` and `checks`, a row for
      each class: `class`, `recall` (with its interval), `threshold`, `passed`.
    """
    rows = [_judged(candidate, gate) for candidate in candidates]
    passed = [
        (row, candidate) for row, candidate in zip(rows, candidates, strict=True) if row["passed"]
    ]
    if not passed:
        winner = None
        reason = f"None of {len(rows)} candidates passes the gate: nothing is deployed."
    else:
        best = max(passed, key=lambda pair: (_recall(pair[1], COVID), pair[0]["macro_f1"]))[0]
        winner = best["recipe"]
        reason = (
            f"{winner} passes the gate and has the highest recall of {COVID} of the "
            f"{len(passed)} that do (then the highest macro-F1)."
            if len(passed) > 1
            else f"{winner} alone passes the gate."
        )
    return {"winner": winner, "reason": reason, "gate": dict(gate), "candidates": rows}


def _judged(candidate: Mapping[str, Any], gate: Mapping[str, float]) -> dict[str, Any]:
    checks, reasons = [], []
    for name in candidate["classes"]:
        threshold = gate.get(name, gate[DEFAULT])
        recall = candidate["per_class"][name]["recall"]
        value = recall["value"]
        passed = value is not None and value >= threshold
        checks.append({"class": name, "recall": recall, "threshold": threshold, "passed": passed})
        if value is None:
            reasons.append(f"no test image of class {name}")
        elif not passed:
            reasons.append(f"recall of {name} {100 * value:.1f} % is under {100 * threshold:.1f} %")
    for name in gate:
        if name != DEFAULT and name not in candidate["classes"]:
            reasons.append(f"does not tell {name}, which the gate names")
    return {
        "recipe": candidate["recipe"],
        "passed": not reasons,
        "reasons": reasons,
        "macro_f1": candidate["macro_f1"],
        "starting_point": candidate["starting_point"],
        "checks": checks,
    }


def _recall(candidate: Mapping[str, Any], name: str) -> float:
    if name not in candidate["classes"]:
        return 0.0
    return float(candidate["per_class"][name]["recall"]["value"])


def gate(
    evaluations: Sequence[Path], thresholds: Mapping[str, float], output: Path
) -> dict[str, Any]:
    """Reads what `evaluate` wrote for each candidate, decides, and writes the decision.

    Args:
      evaluations: the outputs of `evaluate`.
      thresholds: see `parse`.
      output: the decision as JSON; see `decide`. Besides, `decided`: when, as ISO 8601 in UTC.
    """
    candidates = [read_json(evaluation / metrics.FILE) for evaluation in evaluations]
    # Of two decisions the later one is deployed.
    decision = {**decide(candidates, thresholds), "decided": datetime.now(UTC).isoformat()}
    write_json(output, decision)
    for row in decision["candidates"]:
        verdict = "passes" if row["passed"] else f"is refused: {'; '.join(row['reasons'])}"
        logger.info("%s %s", row["recipe"], verdict)
    logger.info("%s", decision["reason"])
    return decision


@data_step
def gate_step(
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    thresholds: str,
    decision: dsl.Output[dsl.Artifact],
    winner: dsl.Output[dsl.Model],
    winners_evaluation: dsl.Output[dsl.Artifact],
) -> str:
    """Lets a candidate pass only if the recall of every class does. See `decide`."""
    from pathlib import Path

    from components.gate import DEPLOY, KEEP, gate, parse

    decided = gate(
        [Path(evaluation.path) for evaluation in evaluations],
        parse(thresholds),
        Path(decision.path),
    )
    for made, found in ((winner, models), (winners_evaluation, evaluations)):
        chosen = next((one for one in found if one.metadata["recipe"] == decided["winner"]), None)
        if chosen:
            made.uri = chosen.uri
            made.metadata.update(chosen.metadata)
    return DEPLOY if decided["winner"] else KEEP
