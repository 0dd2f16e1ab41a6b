"""Step `gate`: which candidate may be deployed, and why. What a gate rule means is decided here."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from kfp import dsl

from components.answers import CHAMPION, PREDICTIONS
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


def decide(
    candidates: Sequence[Mapping[str, Any]],
    gate: Mapping[str, float],
    duels: Sequence[Mapping[str, Any] | None] = (),
) -> dict[str, Any]:
    """Decides which candidate is deployed.

    A candidate passes if its recall on the test split reaches the threshold in every one of its
    classes, if it tells every class that the gate names, and if it is no worse than the champion, on the
    same test images, in its recall of covid and in its accuracy. Of those that pass, the winner is the
    one with the highest recall of covid, then with the highest macro-F1, then the first.

    Args:
      candidates: the metrics of `evaluate`.
      gate: see `parse`.
      duels: of each candidate with the champion, see `training.metrics.duel`; none where there is no
        champion.

    Returns:
      `winner`, a recipe's name or None; `reason`, a sentence; `gate`; and `candidates`, a row each:
      `recipe`, `passed`, `reasons` (why not), `macro_f1`, `starting_point`, `duel` (or None) and
      `checks`, a row for each class: `class`, `recall` (with its interval), `threshold`, `passed`.
    """
    rows = [
        _judged(candidate, gate, duel)
        for candidate, duel in zip(candidates, duels or [None] * len(candidates), strict=True)
    ]
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


def _judged(
    candidate: Mapping[str, Any], gate: Mapping[str, float], duel: Mapping[str, Any] | None
) -> dict[str, Any]:
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
    if duel:
        for name, figure in ((f"recall of {COVID}", "covid_recall"), ("accuracy", "accuracy")):
            ours, theirs = duel[figure]
            if ours is not None and ours < theirs:
                reasons.append(
                    f"{name} {100 * ours:.1f} % is under the {100 * theirs:.1f} % of version "
                    f"{duel['version']}, which is served, on the same {duel['images']} images"
                )
    return {
        "recipe": candidate["recipe"],
        "duel": duel,
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
    evaluations: Sequence[Path],
    thresholds: Mapping[str, float],
    output: Path,
    champion: Path | None = None,
) -> dict[str, Any]:
    """Reads what `evaluate` wrote for each candidate, decides, and writes the decision.

    Args:
      evaluations: the outputs of `evaluate`.
      thresholds: see `parse`.
      champion: the output of `champion`, or None.
      output: the decision as JSON; see `decide`. Besides, `decided`: when, as ISO 8601 in UTC.
    """
    candidates = [read_json(evaluation / metrics.FILE) for evaluation in evaluations]
    duels = [_duel(evaluation, champion) for evaluation in evaluations] if champion else []
    # Of two decisions the later one is deployed.
    decision = {**decide(candidates, thresholds, duels), "decided": datetime.now(UTC).isoformat()}
    write_json(output, decision)
    for row in decision["candidates"]:
        verdict = "passes" if row["passed"] else f"is refused: {'; '.join(row['reasons'])}"
        logger.info("%s %s", row["recipe"], verdict)
    logger.info("%s", decision["reason"])
    return decision


def _duel(evaluation: Path, champion: Path) -> dict[str, Any] | None:
    version = read_json(champion / CHAMPION)["version"]
    if not version:
        return None
    ours, theirs = (pd.read_parquet(one / PREDICTIONS) for one in (evaluation, champion))
    return {"version": version, **metrics.duel(ours, theirs)}


@data_step
def gate_step(
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    thresholds: str,
    decision: dsl.Output[dsl.Artifact],
    winner: dsl.Output[dsl.Model],
    winners_evaluation: dsl.Output[dsl.Artifact],
    champion: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    archive: str,
) -> str:
    """Lets a candidate pass only if the recall of every class does. See `decide`."""
    from pathlib import Path

    from components import spans
    from components.examples import SUMMARY
    from components.files import read_json
    from components.gate import DEPLOY, KEEP, gate, parse
    from components.locations import location

    decided = gate(
        [Path(evaluation.path) for evaluation in evaluations],
        parse(thresholds),
        Path(decision.path),
        Path(champion.path),
    )
    span = read_json(Path(examples.path) / SUMMARY)["span"]
    if archive and span:
        outcome = {"trained": True, "reason": decided["reason"]}
        spans.record_outcome(location(archive), span["number"], outcome)
    for made, found in ((winner, models), (winners_evaluation, evaluations)):
        chosen = next((one for one in found if one.metadata["recipe"] == decided["winner"]), None)
        if chosen:
            made.uri = chosen.uri
            made.metadata.update(chosen.metadata)
    return DEPLOY if decided["winner"] else KEEP
