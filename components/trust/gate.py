"""Step `gate`: decides which candidate may be deployed. Its rules are in `components.trust.rules`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.data import spans
from components.trust import decisions, rules
from components.trust.rules import LOW
from core.artifacts import AUDIT, CHAMPION, METRICS, PREDICTIONS, SUMMARY, Trust, Verdict
from core.divisions import TEST, VALIDATION
from core.files import read_json, write_json
from core.labels import COVID
from core.progress import logger
from core.settings import DEFAULT
from serving import verdict


def decide(
    candidates: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
    duels: Sequence[Mapping[str, Any] | None] = (),
    audits: Sequence[Mapping[str, Any]] = (),
    trust: Trust = Trust.FLAG,
) -> dict[str, Any]:
    """Decides which candidate is deployed.

    A candidate passes if its recall on the test split (and the lower end of its interval, if the gate has a
    threshold for that) reaches the threshold in every one of its classes, if it has every class that the gate
    names, and if it is no worse than the champion: on the same test images in its recall of covid and in its
    accuracy, and in its verdict. If trust is enforced, it must be trusted as well. Of those that pass, the
    winner is the one that is trusted most, then the one with the highest recall of covid on the validation
    split, then with the highest macro F1 there, then the first. If the test split chose, the winner's
    figures there would be those of the luckiest. If a candidate that passes has no figures of the validation
    split, those of the test split are used for all, and the reason says so.

    Args:
      candidates: the metrics of `evaluate`.
      thresholds: see `rules.parse`.
      duels: of each candidate with the champion, see `training.metrics.duel`, with the champion's verdict as
        `trust`; empty if there is none.
      audits: of each candidate, see `components.trust.audit`; empty: candidates have no verdict.
      trust: whether only trusted candidates pass.

    Returns:
      `winner`, a recipe's name or None; `reason`, a sentence; `gate`, the thresholds; `trust`, as given; and
      `candidates`, a row each: `recipe`, `passed`, `reasons` (why not), `behind` (why it passes and does
      not win, or empty), `macro_f1`, `validation` and `answers` (see `evaluate`, or None), `starting_point`,
      `duel` (or None), `checks`, a row for each class: `class`, `recall` (with its interval), `threshold`,
      `threshold_low` (of the interval's lower end, or None), `passed`; `rules`, see `rules.judged`; and
      `trust`, see `rules.verdict`, or None.
    """
    none = [None] * len(candidates)
    rows = [
        _judged(candidate, thresholds, duel, audit, trust)
        for candidate, duel, audit in zip(candidates, duels or none, audits or none, strict=True)
    ]
    passed = [
        (row, candidate) for row, candidate in zip(rows, candidates, strict=True) if row["passed"]
    ]
    if not passed:
        winner = None
        reason = f"None of {len(rows)} candidates passes the gate: nothing is deployed."
    else:
        validated = all(candidate.get("validation") for _, candidate in passed)
        split = VALIDATION if validated else TEST
        figures = [(_rank(row), *_chosen_by(candidate, split)) for row, candidate in passed]
        best = figures.index(max(figures))
        winner = passed[best][0]["recipe"]
        for i, (row, _) in enumerate(passed):
            if i != best:
                row["behind"] = _behind(figures[i], figures[best], split, winner)
        reason = _why(winner, figures, split)
        if len(passed) > 1 and not validated:
            reason += " Not all of them have figures of the validation split."
    return {
        "winner": winner,
        "reason": reason,
        "gate": dict(thresholds),
        "trust": trust.value,
        "candidates": rows,
    }


def _judged(
    candidate: Mapping[str, Any],
    thresholds: Mapping[str, float],
    duel: Mapping[str, Any] | None,
    audit: Mapping[str, Any] | None,
    trust: Trust,
) -> dict[str, Any]:
    checks, reasons = [], []
    for name in candidate["classes"]:
        threshold = thresholds.get(name, thresholds[DEFAULT])
        recall = candidate["per_class"][name]["recall"]
        value = recall["value"]
        least_low = thresholds.get(name + LOW, thresholds.get(DEFAULT + LOW))
        reason = ""
        if value is None:
            reason = f"no test image of class {name}"
        elif value < threshold:
            reason = f"recall of {name} {100 * value:.1f} % is under {100 * threshold:.1f} %"
        elif least_low is not None and recall["low"] < least_low:
            reason = (
                f"recall of {name} may be as low as {100 * recall['low']:.1f} % (the lower end of its "
                f"95 % interval), under {100 * least_low:.1f} %"
            )
        reasons += [reason] if reason else []
        checks.append(
            {
                "class": name,
                "recall": recall,
                "threshold": threshold,
                "threshold_low": least_low,
                "passed": not reason,
            }
        )
    of_trust = rules.judged(audit) if audit else []
    judgement = rules.verdict(of_trust) if audit else None
    for name in thresholds:
        told = name.removesuffix(LOW)
        if told not in (DEFAULT, *candidate["classes"]):
            reasons.append(f"does not have class {told}, which the gate names")
    if duel:
        for name, figure in ((f"recall of {COVID}", "covid_recall"), ("accuracy", "accuracy")):
            ours, theirs = duel[figure]
            if ours is not None and ours < theirs:
                reasons.append(
                    f"{name} {100 * ours:.1f} % is under the {100 * theirs:.1f} % of version "
                    f"{duel['version']}, which is served, on the same {duel['images']} images"
                )
        if judgement and verdict.rank(judgement) < verdict.rank(duel["trust"]):
            reasons.append(
                f"{judgement['verdict']}, while version {duel['version']}, which is served, is "
                f"{duel['trust']['verdict']}"
            )
    if trust == Trust.ENFORCE and (judgement is None or judgement["verdict"] != Verdict.TRUSTED):
        reasons += (
            [f"{judgement['verdict']}: {reason}" for reason in judgement["reasons"]]
            if judgement
            else ["it was not audited"]
        )
    return {
        "recipe": candidate["recipe"],
        "duel": duel,
        "passed": not reasons,
        "reasons": reasons,
        "behind": "",
        "macro_f1": candidate["macro_f1"],
        "validation": candidate.get("validation"),
        "answers": candidate.get("answers"),
        "starting_point": candidate["starting_point"],
        "checks": checks,
        "rules": of_trust,
        "trust": judgement,
    }


def _rank(row: Mapping[str, Any]) -> int:
    return verdict.rank(row["trust"]) if row["trust"] else -1


def _chosen_by(candidate: Mapping[str, Any], split: str) -> tuple[float, float]:
    """Returns the recall of covid (0 without that class) and the macro F1 on a split."""
    if split == VALIDATION:
        figures = candidate["validation"]
        return figures["covid_recall"]["value"] or 0.0, figures["macro_f1"]
    told = COVID in candidate["classes"]
    recall = candidate["per_class"][COVID]["recall"]["value"] if told else 0.0
    return recall, candidate["macro_f1"]


def _why(winner: str, figures: Sequence[tuple[float, float, float]], split: str) -> str:
    """Returns why the winner wins, in a sentence; `figures` are those of the candidates that pass."""
    best = max(figures)
    count = len(figures)
    most = [candidate for candidate in figures if candidate[0] == best[0]]
    if count == 1:
        return f"{winner} alone passes the gate."
    if len(most) == 1:
        return f"{winner} is the most trusted of the {count} candidates that pass the gate."
    of = f"Of the {count} candidates that pass the gate, "
    if len(most) < count:
        of += f"{len(most)} are trusted most; of these, "
    alike = [candidate for candidate in most if candidate[1] == best[1]]
    if len(alike) == 1:
        return f"{of}{winner} has the highest recall of {COVID} on the {split} split."
    if alike.count(best) == 1:
        return (
            f"{of}{winner} has the highest macro F1 on the {split} split among the {len(alike)} with the "
            f"highest recall of {COVID} there."
        )
    if alike.count(best) == count:
        return (
            f"The {count} candidates that pass the gate have the same recall of {COVID} and macro F1 on the "
            f"{split} split; {winner} comes first."
        )
    return (
        f"{of}{alike.count(best)} have both the highest recall of {COVID} and the highest macro F1 on the "
        f"{split} split; {winner} comes first."
    )


def _behind(
    figures: tuple[float, float, float],
    best: tuple[float, float, float],
    split: str,
    winner: str,
) -> str:
    there = f"on the {split} split"
    if figures[0] < best[0]:
        return f"{winner} is trusted more"
    if figures[1] < best[1]:
        return f"its recall of {COVID} {there} is lower than that of {winner}"
    if figures[2] < best[2]:
        return f"its recall of {COVID} {there} is that of {winner}, its macro F1 there is lower"
    return (
        f"its recall of {COVID} and its macro F1 {there} are those of {winner}, which comes first"
    )


def gate(
    evaluations: Sequence[Path],
    thresholds: Mapping[str, float],
    output: Path,
    champion: Path | None = None,
    audits: Sequence[Path] = (),
    *,
    trust: Trust = Trust.FLAG,
    examples: Path | None = None,
    archive: Path | None = None,
    run: str = "",
) -> dict[str, Any]:
    """Reads what `evaluate` wrote for each candidate, decides, and writes the decision.

    With an archive, decisions on a test split are counted there; see `components.trust.decisions`.

    Args:
      evaluations: the outputs of `evaluate`.
      thresholds: see `rules.parse`.
      champion: the output of `champion`, or None.
      audits: the outputs of `audit`, in the order of `evaluations`.
      trust: whether only trusted candidates pass.
      output: the decision as JSON; see `decide`. Besides, `decided`: when, as ISO 8601 in UTC; and
        `test_split`: its `digest`, and `decided_before`, how many decisions of other runs were made on it
        before (None without an archive); None without `examples`.
      examples: the output of `ingest`.
      archive: see `components.data.spans`.
      run: the pipeline run's id. A run that is restarted is counted once.

    Raises:
      UserError: the archive cannot be read or written.
    """
    candidates = [read_json(evaluation / METRICS) for evaluation in evaluations]
    duels = [_duel(evaluation, champion) for evaluation in evaluations] if champion else []
    measured = [read_json(audit / AUDIT) for audit in audits]
    # Of two decisions the later one is deployed.
    decided = datetime.now(UTC).isoformat()
    decision = {**decide(candidates, thresholds, duels, measured, trust), "decided": decided}
    decision["test_split"] = None
    if examples:
        digest = decisions.digest_of_test_split(examples)
        before = None
        if archive:
            recipes = [candidate["recipe"] for candidate in candidates]
            before = decisions.add(archive, digest, run=run, decided=decided, recipes=recipes)
        decision["test_split"] = {"digest": digest, "decided_before": before}
    write_json(output, decision)
    for row in decision["candidates"]:
        outcome = "passes" if row["passed"] else f"is refused: {'; '.join(row['reasons'])}"
        logger.info("%s %s", row["recipe"], outcome)
    logger.info("%s", decision["reason"])
    return decision


def record(decision: Mapping[str, Any], examples: Path, archive: Path | None) -> None:
    """Records in the archive the outcome of the span that the candidates were trained on.

    Args:
      decision: see `gate`.
      examples: the output of `ingest`.
      archive: see `components.data.spans`; None: nothing is recorded.
    """
    span = read_json(examples / SUMMARY)["span"]
    if archive and span:
        # The step that deploys the winner records that.
        state = spans.State.PASSED if decision["winner"] else spans.State.REFUSED
        spans.record_outcome(archive, span["number"], state, decision["reason"])


def _duel(evaluation: Path, champion: Path) -> dict[str, Any] | None:
    served = read_json(champion / CHAMPION)
    version = served["version"]
    if not version:
        return None
    # Only a duel needs them, and they take long to import.
    from core.tables import read_table
    from training import metrics

    ours, theirs = (read_table(output / PREDICTIONS) for output in (evaluation, champion))
    return {"version": version, "trust": served["trust"], **metrics.duel(ours, theirs)}
