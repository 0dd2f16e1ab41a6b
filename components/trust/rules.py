"""What a gate rule means: what is measured, and what of it may pass.

A gate is written as one text of `name=number` with commas between. A name is

    covid, …, default   a class, or all that are not named: the least recall on the test split
    covid-low, …        the same, with `-low`: what the lower end of its 95 % interval must reach
    in-lungs, …         one of `RULES`

Numbers that are not given are those of `GATE` and of the rules below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.settings import DEFAULT, parse_numbers
from training.recipes import RECIPES

GATE = "covid=0.9,default=0.7"
LOW = "-low"
FEWEST_ELSEWHERE = 20
# In an audit's `probes`.
AGE_PROBE = "adult or child, covid left out"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something a candidate must keep besides its recall.

    Attributes:
      name: in a gate.
      what: is measured, in words that follow "the".
      bound: the number that must be kept, unless a gate says another.
      at_least: whether the measure must reach the bound, or must not exceed it.
      measure: finds it in an audit (see `components.trust.audit`); None where it was not measured.
      needed: whether a candidate of whom it was not measured is refused. The others cannot be judged on
        few images.
    """

    name: str
    what: str
    bound: float
    at_least: bool
    measure: Callable[[Mapping[str, Any]], float | None]
    needed: bool = True


def _without_lungs(audit: Mapping[str, Any]) -> float | None:
    """A probe of few epochs may have learnt less of frames than the candidate knows already."""
    told = (audit["explained"].get(view) for view in ("frame probe", "frame alone"))
    return max((share for share in told if share is not None), default=None)


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
        what="share of the accuracy above chance that a network reaches which sees no lungs",
        bound=0.5,
        at_least=False,
        measure=_without_lungs,
    ),
    Rule(
        name="lung-free-explained",
        what="share of the accuracy above chance that is left when the lungs are blanked",
        bound=0.5,
        at_least=False,
        measure=lambda audit: audit["explained"].get("lungs blanked"),
    ),
    Rule(
        name="in-lungs",
        what="share of the heat maps that lies in the lungs, to the share of the image that they take",
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
        what="area under the ROC curve by which its features tell adults from children",
        bound=0.9,
        at_least=False,
        measure=lambda audit: next(
            (probe["auc"] for probe in audit["probes"] if probe["what"] == AGE_PROBE), None
        ),
        needed=False,
    ),
    Rule(
        name="external-false-alarms",
        what="highest share of another place's images without covid that are called covid",
        bound=0.3,
        at_least=False,
        measure=lambda audit: max(
            (
                one["called_covid"]["value"]
                for one in audit["external"]
                if one["called_covid"]["value"] is not None
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
                one["drop"][name]["value"]
                for one in audit["external"]
                for name in one["drop"]
                if one["counts"][name] >= FEWEST_ELSEWHERE
                and one["drop"][name]["value"] is not None
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
      text: e.g. `covid=0.9,default=0.7,frame-explained=0.4`; recalls are in 0..1. A rule is switched off
        by `inf` where it must not be exceeded, and by 0 where it must be reached.

    Returns:
      numbers by name, always with `default` and every rule.

    Raises:
      UserError: the text cannot be read so, names neither class nor rule, or no recall.
    """
    given = parse_numbers("gate", text, GATE)
    classes = {name for recipe in RECIPES.values() for name in recipe.classes}
    rules = {rule.name: rule.bound for rule in RULES}
    for name, number in given.items():
        if name.removesuffix(LOW) not in (DEFAULT, *classes) and name not in rules:
            raise UserError(
                f"gate: {name!r} is no class of a recipe and no rule; there are "
                f"{', '.join(sorted(classes))}, {DEFAULT!r} for all other classes, each with {LOW!r} "
                f"for the lower end of its interval, and the rules {', '.join(rules)}"
            )
        if name not in rules and not 0 <= number <= 1:
            raise UserError(f"gate: {name}={number:g} in {text!r} is no recall between 0 and 1")
        if name.endswith(LOW) and number == 1:
            raise UserError(
                f"gate: {name}=1 in {text!r} can never be reached: no number of images makes the lower end "
                "of an interval 1"
            )
    for rule in RULES:
        number = given.get(rule.name, rule.bound)
        if rule.at_least and number == float("inf"):
            raise UserError(
                f"gate: {rule.name}=inf can never be reached; {rule.name}=0 switches it off"
            )
        if not rule.at_least and number < 0:
            raise UserError(
                f"gate: {rule.name}={number:g} can never be kept; {rule.name}=inf switches it off"
            )
    return {DEFAULT: parse_numbers("gate", GATE, GATE)[DEFAULT], **rules, **given}


def judged(audit: Mapping[str, Any], gate: Mapping[str, float]) -> list[dict[str, Any]]:
    """Holds an audit against a gate.

    Returns:
      a row for each rule: `name`, `what`, `value` (or None), `bound` (None where the rule is off),
      `at_least`, `passed`, `reason`, why not, and `verdict` in words.
    """
    return [_judged(rule, rule.measure(audit), gate[rule.name]) for rule in RULES]


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


def _verdict(passed: bool, measured: bool, off: bool) -> str:
    if off:
        return "off"
    if not passed:
        return "refused"
    return "kept" if measured else "not judged"
