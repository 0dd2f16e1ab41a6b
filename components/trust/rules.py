"""The rules of a gate: what is measured, and which values pass.

A gate is written as one text of `name=number` with commas between. A name is

    covid, …, default   a class, or all classes that are not named: the lowest recall on the test split
    covid-low, …        with `-low`: the lowest value of the lower end of the recall's 95 % interval
    in-lungs, …         one of `RULES`

Numbers that are not given are those of `GATE` and of the rules below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from core.errors import UserError
from core.settings import DEFAULT, parse_numbers
from training.recipes import RECIPES

GATE = "covid=0.9,default=0.7"
LOW = "-low"
FEWEST_ELSEWHERE = 20
# The row of an audit's `probes` that tells adults from children.
AGE_PROBE = "adult or child, covid left out"


class View(StrEnum):
    """What of an image an audit shows the candidate. `PROBE`: what its frame probe learns from instead."""

    WHOLE = "whole image"
    LUNG_FREE = "lungs blanked"
    LUNGS_ALONE = "lungs alone"
    FRAME_ALONE = "frame alone"
    NO_MARKERS = "markers blanked"
    PROBE = "frame probe"


class Verdict(StrEnum):
    """What a rule says of a candidate."""

    KEPT = "kept"
    REFUSED = "refused"
    OFF = "off"
    NOT_JUDGED = "not judged"  # there are too few images to measure it


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on a candidate's audit, besides the recall.

    Attributes:
      name: in a gate.
      what: what is measured, in words that follow "the".
      bound: the bound, unless a gate gives another.
      at_least: whether the measure must reach the bound; otherwise it must not exceed it.
      measure: finds the measure in an audit (see `components.trust.audit`); None if it was not measured.
      needed: whether a candidate is refused if it was not measured. Other rules cannot be judged on few
        images.
    """

    name: str
    what: str
    bound: float
    at_least: bool
    measure: Callable[[Mapping[str, Any]], float | None]
    needed: bool = True


def _without_lungs(audit: Mapping[str, Any]) -> float | None:
    """Returns the larger share: the probe, trained for few epochs, may know less of frames than the model."""
    shares = (audit["explained"].get(view) for view in (View.PROBE, View.FRAME_ALONE))
    return max((share for share in shares if share is not None), default=None)


RULES = (
    Rule(
        name="leaks",
        what="number of test images whose patient or picture is in training",
        bound=0,
        at_least=False,
        measure=lambda audit: audit["leaks"],
    ),
    Rule(
        name="frame-explained",
        what="share of the accuracy above chance that a network reaches without seeing lungs",
        bound=0.5,
        at_least=False,
        measure=_without_lungs,
    ),
    Rule(
        name="lung-free-explained",
        what="share of the accuracy above chance that is left when the lungs are blanked",
        bound=0.5,
        at_least=False,
        measure=lambda audit: audit["explained"].get(View.LUNG_FREE),
    ),
    Rule(
        name="in-lungs",
        what="share of the heat maps in the lungs, relative to the share of the image that lungs cover",
        bound=1.0,
        at_least=True,
        measure=lambda audit: audit["attribution"] and audit["attribution"]["all"]["focus"],
    ),
    Rule(
        name="calibration-error",
        what="expected calibration error",
        bound=0.15,
        at_least=False,
        measure=lambda audit: audit["calibration"]["error"],
    ),
    Rule(
        name="subgroup-recall",
        what="lowest recall of covid in a subgroup",
        bound=0.6,
        at_least=True,
        measure=lambda audit: (
            audit["lowest_subgroup"] and audit["lowest_subgroup"]["recall"]["value"]
        ),
        needed=False,
    ),
    Rule(
        name="false-alarms",
        what="share of the other images of covid's own sources that are called covid",
        bound=0.5,
        at_least=False,
        measure=lambda audit: (
            audit["same_source"] and audit["same_source"]["false_alarms"]["value"]
        ),
        needed=False,
    ),
    Rule(
        name="age-told",
        what="area under the ROC curve with which its features tell adults from children",
        bound=0.9,
        at_least=False,
        measure=lambda audit: next(
            (probe["auc"] for probe in audit["probes"] if probe["what"] == AGE_PROBE), None
        ),
        needed=False,
    ),
    Rule(
        name="external-false-alarms",
        what="highest share of images without covid from another place that are called covid",
        bound=0.3,
        at_least=False,
        measure=lambda audit: max(
            (
                place["called_covid"]["value"]
                for place in audit["external"]
                if place["called_covid"]["value"] is not None
            ),
            default=None,
        ),
        needed=False,
    ),
    Rule(
        name="external-drop",
        what="largest loss of a class's recall from the test split to another place",
        bound=0.25,
        at_least=False,
        measure=lambda audit: max(
            (
                place["drop"][name]["value"]
                for place in audit["external"]
                for name in place["drop"]
                if place["counts"][name] >= FEWEST_ELSEWHERE
                and place["drop"][name]["value"] is not None
            ),
            default=None,
        ),
        needed=False,
    ),
)
RULE_NAMES = tuple(rule.name for rule in RULES)


def parse(text: str) -> dict[str, float]:
    """Reads a gate as written on a command line.

    Args:
      text: e.g. `covid=0.9,default=0.7,frame-explained=0.4`; recalls are in 0..1. `inf` switches off a
        rule with an upper bound, 0 one with a lower bound.

    Returns:
      numbers by name, always with `default` and every rule.

    Raises:
      UserError: the text cannot be parsed, a name is neither class nor rule, or a recall is not in 0..1.
    """
    given = parse_numbers("gate", text, GATE)
    classes = {name for recipe in RECIPES.values() for name in recipe.classes}
    rules = {rule.name: rule.bound for rule in RULES}
    for name, number in given.items():
        if name.removesuffix(LOW) not in (DEFAULT, *classes) and name not in rules:
            raise UserError(
                f"gate: {name!r} is no class of a recipe and no rule. Classes: "
                f"{', '.join(sorted(classes))}, and {DEFAULT!r} for all others; with {LOW!r} appended, the "
                f"lower end of the interval. Rules: {', '.join(rules)}"
            )
        if name not in rules and not 0 <= number <= 1:
            raise UserError(f"gate: {name}={number:g} in {text!r} is not a recall between 0 and 1")
        if name.endswith(LOW) and number == 1:
            raise UserError(
                f"gate: {name}=1 can never be reached, because no number of images makes the lower end of an "
                "interval 1"
            )
    for rule in RULES:
        number = given.get(rule.name, rule.bound)
        if rule.at_least and number == float("inf"):
            raise UserError(
                f"gate: {rule.name}=inf can never be reached; {rule.name}=0 switches the rule off"
            )
        if not rule.at_least and number < 0:
            raise UserError(
                f"gate: {rule.name}={number:g} can never be met; {rule.name}=inf switches the rule off"
            )
    return {DEFAULT: parse_numbers("gate", GATE, GATE)[DEFAULT], **rules, **given}


def judged(audit: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Judges an audit by the rules.

    Args:
      audit: see `components.trust.audit`.
      thresholds: see `parse`.

    Returns:
      a row for each rule: `name`, `what`, `value` (or None), `bound` (None where the rule is off),
      `at_least`, `passed`, `reason`, why not, and `verdict`, a `Verdict`.
    """
    return [_judged(rule, rule.measure(audit), thresholds[rule.name]) for rule in RULES]


def _judged(rule: Rule, value: float | None, bound: float) -> dict[str, Any]:
    off = bound <= 0 if rule.at_least else bound == float("inf")
    if value is None:
        passed = off or not rule.needed
        reason = f"the {rule.what} could not be measured"
    else:
        passed = value >= bound if rule.at_least else value <= bound
        side = "under" if rule.at_least else "over"
        reason = f"the {rule.what} is {value:.2f}, {side} {bound:g}"
    return {
        "name": rule.name,
        "what": rule.what,
        "value": value,
        "bound": None if off else bound,
        "at_least": rule.at_least,
        "passed": passed,
        "verdict": _verdict(passed, value is not None, off),
        "reason": "" if passed else reason,
    }


def _verdict(passed: bool, measured: bool, off: bool) -> Verdict:
    if off:
        return Verdict.OFF
    if not passed:
        return Verdict.REFUSED
    return Verdict.KEPT if measured else Verdict.NOT_JUDGED
