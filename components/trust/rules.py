"""The rules of trust, the verdict that follows from them, and the recalls of a gate.

A gate is written as one text of `name=number` with commas between. A name is

    covid, …, default   a class, or all classes that are not named: the lowest recall on the test split
    covid-low, …        with `-low`: the lowest value of the lower end of the recall's 95 % interval

Numbers that are not given are those of `GATE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Any

from core.artifacts import Trust, Verdict
from core.errors import UserError
from core.settings import DEFAULT, parse_numbers
from training.recipes import RECIPES

GATE = "covid=0.9,default=0.7"
LOW = "-low"
# Unrelated patients of a class, or without covid, in another place.
FEWEST_ELSEWHERE = 20
# Answers about swapped images that follow the lungs or the surroundings.
FEWEST_SWAPPED = 20
# If fewer swapped images of one class keep their answer, seams change the answers.
LEAST_CONTROL = 0.5
MOST_REASONS = 3


class View(StrEnum):
    """What of an image an audit shows the candidate."""

    WHOLE = "whole image"
    LUNG_FREE = "lungs blanked"
    LUNGS_ALONE = "lungs alone"


class Outcome(StrEnum):
    """What a rule says of a candidate."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_JUDGED = "not judged"  # there is too little to measure it


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on a candidate's audit.

    Attributes:
      name: on pages and in `audit.json`.
      what: what is measured, in words that follow "the".
      bound: that the measure must keep.
      at_least: whether the measure must reach the bound; otherwise it must not exceed it.
      measure: finds the measure in an audit (see `components.trust.audit`); None if it was not measured.
      broken: a short sentence about a measure that breaks the bound, with `{value}`.
      lacking: finds in an audit why the rule cannot be judged, in a short sentence that says what would let
        it be; empty if it can be judged, or if a candidate can be trusted without it.
    """

    name: str
    what: str
    bound: float
    at_least: bool
    measure: Callable[[Mapping[str, Any]], float | None]
    broken: str
    lacking: Callable[[Mapping[str, Any]], str] = lambda audit: ""


def _follows_lungs(audit: Mapping[str, Any]) -> float | None:
    value: float | None = audit["swaps"]["follows"]["value"]
    return None if _no_swaps(audit) else value


def _no_swaps(audit: Mapping[str, Any]) -> str:
    swaps = audit["swaps"]
    either, control = swaps["lungs"] + swaps["surroundings"], swaps["control"]["value"]
    if not swaps["pairs"]:
        return (
            "too few right answers with lungs found to swap surroundings: more test images, or a better "
            "model, needed"
        )
    if control < LEAST_CONTROL:
        kept = _beyond(control, LEAST_CONTROL, at_least=True)
        return (
            f"keeps {100 * kept:.0f} % of its answers in surroundings of the same class, so seams "
            f"confuse it: at least {100 * LEAST_CONTROL:.0f} % needed"
        )
    if either < FEWEST_SWAPPED:
        return (
            f"only {either} of {swaps['pairs']} answers about swapped images name the class of lungs or "
            f"surroundings: at least {FEWEST_SWAPPED} needed"
        )
    return ""


def _lung_free(audit: Mapping[str, Any]) -> float | None:
    value: float | None = audit["lung_free_explained"]
    return value


def _alike(audit: Mapping[str, Any]) -> float | None:
    value: float | None = (audit["like_with_like"]["auc"] or {}).get("low")
    return value


def _alarms(audit: Mapping[str, Any]) -> float | None:
    value: float | None = audit["adults"]["false_alarms"]["value"]
    return value


def _alarms_elsewhere(audit: Mapping[str, Any]) -> float | None:
    return max(
        (
            place["called_covid"]["value"]
            for place in audit["external"]
            if place["judged_patients"]["others"] >= FEWEST_ELSEWHERE
        ),
        default=None,
    )


def _drop_elsewhere(audit: Mapping[str, Any]) -> float | None:
    return max(
        (
            drop["value"]
            for place in audit["external"]
            for name, drop in place["drop"].items()
            if place["judged_patients"][name] >= FEWEST_ELSEWHERE and drop["value"] is not None
        ),
        default=None,
    )


def _too_few_elsewhere(audit: Mapping[str, Any]) -> str:
    few = [
        _few(place)
        for place in audit["external"]
        if max(place["judged_patients"].values()) < FEWEST_ELSEWHERE
    ]
    if not few:
        return ""
    return (
        f"too few patients to judge in --external {' and '.join(few)}: {FEWEST_ELSEWHERE} without covid, or "
        "of one class, needed"
    )


def _few(place: Mapping[str, Any]) -> str:
    """Returns a place's name, its largest number of patients, and why other images of it do not count."""
    causes = {**place["left_out"], "abstained": place["images"] - place["answered"]}
    others = ", ".join(f"{count} {why}" for why, count in causes.items() if count)
    most = max(place["judged_patients"].values())
    return f"{place['name']} ({most}{'; left out: ' if others else ''}{others})"


def _unless(
    measure: Callable[[Mapping[str, Any]], float | None], sentence: str
) -> Callable[[Mapping[str, Any]], str]:
    """Returns a `Rule.lacking` that says a sentence if there is no measure."""
    return lambda audit: sentence if measure(audit) is None else ""


RULES = (
    Rule(
        name="leaks",
        what="number of test images whose patient or picture is in training",
        bound=0,
        at_least=False,
        measure=lambda audit: audit["leaks"],
        broken="the patient or picture of {value:.0f} test images is in training",
        lacking=_unless(
            lambda audit: audit["leaks"],
            "it does not say which images it was made with: an earlier release published it",
        ),
    ),
    Rule(
        name="follows-lungs",
        what="share of answers that follow the lungs when lungs and surroundings are of two images",
        bound=0.7,
        at_least=True,
        measure=_follows_lungs,
        broken="follows the lungs in {value:.0%} of images with swapped surroundings, at least 70 % needed",
        lacking=_no_swaps,
    ),
    Rule(
        name="lung-free-explained",
        what="share of the accuracy above chance that is left when the lungs are blanked",
        bound=0.5,
        at_least=False,
        measure=_lung_free,
        broken="keeps {value:.0%} of its accuracy when the lungs are blanked, at most 50 % allowed",
        lacking=_unless(
            _lung_free,
            "hardly better than chance, so blanked lungs show nothing: a better model needed",
        ),
    ),
    Rule(
        name="like-with-like",
        what="lower end of the area under the ROC curve for covid within one source and age group",
        bound=0.6,
        at_least=True,
        measure=_alike,
        broken="ROC area of covid within one source and age group as low as {value:.2f}, at least 0.6 needed",
        lacking=_unless(
            _alike,
            "too few test patients with covid and others share source and age group: add a --source that "
            "has both, with ages",
        ),
    ),
    Rule(
        name="false-alarms",
        what="share of adults without covid that are called covid",
        bound=0.3,
        at_least=False,
        measure=_alarms,
        broken="answers covid for {value:.0%} of adults without covid, at most 30 % allowed",
        lacking=_unless(
            _alarms,
            "too few adults without covid in the test split: add a --source that has them, with their ages",
        ),
    ),
    Rule(
        name="calibration-error",
        what="expected calibration error",
        bound=0.15,
        at_least=False,
        measure=lambda audit: audit["calibration"]["error"],
        broken="calibration error {value:.2f}, at most 0.15 allowed",
    ),
    Rule(
        name="subgroup-recall",
        what="lowest recall of covid in a subgroup",
        bound=0.6,
        at_least=True,
        measure=lambda audit: (
            audit["lowest_subgroup"] and audit["lowest_subgroup"]["recall"]["value"]
        ),
        broken="finds {value:.0%} of covid in one subgroup, at least 60 % needed",
    ),
    Rule(
        name="external-false-alarms",
        what="highest share of images without covid from another place that are called covid",
        bound=0.3,
        at_least=False,
        measure=_alarms_elsewhere,
        broken="elsewhere answers covid for {value:.0%} of images without covid, at most 30 % allowed",
        lacking=_too_few_elsewhere,
    ),
    Rule(
        name="external-drop",
        what="largest loss of a class's recall from the test split to another place",
        bound=0.25,
        at_least=False,
        measure=_drop_elsewhere,
        broken="elsewhere the recall of a class is lower by {value:.2f}, at most 0.25 allowed",
    ),
)


def trust_named(text: str) -> Trust:
    """Returns which candidates a run deploys, by name.

    Raises:
      UserError: there is no such name.
    """
    try:
        return Trust(text)
    except ValueError:
        names = " or ".join(f"{each.value!r}" for each in Trust)
        raise UserError(f"trust: unknown {text!r}; choose {names}") from None


def parse(text: str) -> dict[str, float]:
    """Reads a gate as written on a command line.

    Args:
      text: e.g. `covid=0.9,default=0.7`; recalls in 0..1.

    Returns:
      recalls by name, always with `default`.

    Raises:
      UserError: the text cannot be parsed, a name is not a class, or a recall is not in 0..1.
    """
    given = parse_numbers("gate", text, GATE)
    classes = {name for recipe in RECIPES.values() for name in recipe.classes}
    for name, number in given.items():
        if name.removesuffix(LOW) not in (DEFAULT, *classes):
            raise UserError(
                f"gate: {name!r} is not a class of a recipe. Classes: {', '.join(sorted(classes))}, and "
                f"{DEFAULT!r} for all others; with {LOW!r} appended, the lower end of the interval"
            )
        if not 0 <= number <= 1:
            raise UserError(f"gate: {name}={number:g} in {text!r} is not a recall between 0 and 1")
        if name.endswith(LOW) and number == 1:
            raise UserError(
                f"gate: {name}=1 can never be reached, because no number of images makes the lower end of an "
                "interval 1"
            )
    return {DEFAULT: parse_numbers("gate", GATE, GATE)[DEFAULT], **given}


def judged(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judges an audit by the rules.

    Args:
      audit: see `components.trust.audit`.

    Returns:
      a row for each rule: `name`, `what`, `value` (or None), `bound`, `at_least`, `outcome`, an `Outcome`,
      and `reason`: a short sentence if the rule is broken, or if it is needed and cannot be judged.
    """
    return [_judged(rule, audit) for rule in RULES]


def _judged(rule: Rule, audit: Mapping[str, Any]) -> dict[str, Any]:
    value, lacking = rule.measure(audit), rule.lacking(audit)
    if value is not None and (value < rule.bound if rule.at_least else value > rule.bound):
        shown = _beyond(value, rule.bound, at_least=rule.at_least)
        outcome, reason = Outcome.BROKEN, rule.broken.format(value=shown).replace("%", " %", 1)
    elif value is None or lacking:
        outcome, reason = Outcome.NOT_JUDGED, lacking
    else:
        outcome, reason = Outcome.KEPT, ""
    return {
        "name": rule.name,
        "what": rule.what,
        "value": value,
        "bound": rule.bound,
        "at_least": rule.at_least,
        "outcome": outcome,
        "reason": reason,
    }


def _beyond(value: float, bound: float, *, at_least: bool) -> float:
    """Returns a measure that breaks a bound with two digits, with which it breaks it, too."""
    shown = round(value, 2)
    if shown < bound if at_least else shown > bound:
        return shown
    # Of the shortest decimal: 0.31 must not become 0.32.
    rounding = ROUND_FLOOR if at_least else ROUND_CEILING
    return float(Decimal(repr(float(value))).quantize(Decimal("0.01"), rounding))


def verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the verdict on a candidate.

    Args:
      rows: see `judged`.

    Returns:
      `verdict`, a `core.artifacts.Verdict`: `not trusted` if a rule is broken, else `unproven` if a rule that
      is needed could not be judged, else `trusted`; and `reasons`, at most three short ones: of broken
      rules the one that is farthest from its bound first.
    """
    broken = sorted(
        (row for row in rows if row["outcome"] == Outcome.BROKEN), key=_badness, reverse=True
    )
    unjudged = [row for row in rows if row["outcome"] == Outcome.NOT_JUDGED and row["reason"]]
    outcome = Verdict.NOT_TRUSTED if broken else Verdict.UNPROVEN if unjudged else Verdict.TRUSTED
    reasons = [row["reason"] for row in (broken or unjudged)]
    return {"verdict": outcome.value, "reasons": reasons[:MOST_REASONS]}


def _badness(row: Mapping[str, Any]) -> float:
    """Returns how far a measure is beyond its bound, as a share of the way to the worst value."""
    worst = 0.0 if row["at_least"] else 1.0
    return float((row["value"] - row["bound"]) / (worst - row["bound"]))
