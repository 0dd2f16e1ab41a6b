import math

import pytest

from components.trust import rules
from components.trust.gate import decide
from pipelines.refusals import next_steps, refusals

GATE = "covid=0.9,default=0.7"


def candidate(name: str, **recalls: float | None) -> dict:
    return {
        "recipe": name,
        "classes": list(recalls),
        "macro_f1": 0.5,
        "starting_point": "from scratch",
        "per_class": {
            one: {"recall": {"value": value, "low": value, "high": value}}
            for one, value in recalls.items()
        },
    }


def decision(*candidates: dict, broken: dict[str, float] | None = None) -> dict:
    decided = decide(candidates, rules.parse(GATE))
    for row in decided["candidates"]:
        for rule in rules.RULES:
            value = (broken or {}).get(rule.name)
            passed = value is None
            reason = "" if passed else f"the {rule.what} is wrong"
            row["rules"].append(
                {
                    "name": rule.name, "what": rule.what, "value": value, "bound": rule.bound,
                    "at_least": rule.at_least, "passed": passed, "verdict": "", "reason": reason,
                }
            )  # fmt: skip
            row["reasons"] += [reason] if reason else []
        row["passed"] = not row["reasons"]
    return decided


def test_each_refused_candidate_has_one_line():
    decided = decision(
        candidate("small", covid=0.85, normal=0.9),
        candidate("large", covid=0.95, normal=0.9),
        broken={"in-lungs": 0.75, "age-told": 0.99},
    )
    assert dict(refusals(decided)) == {
        "small": "recall of covid 85.0 % is under 90.0 %; in-lungs 0.75, must be at least 1; "
        "age-told 0.99, must be at most 0.9",
        "large": "in-lungs 0.75, must be at least 1; age-told 0.99, must be at most 0.9",
    }


def test_what_can_be_tried_is_what_the_nearest_candidate_lacks():
    decided = decision(
        candidate("small", covid=0.1, normal=0.2), candidate("large", covid=0.87, normal=0.9)
    )
    steps = dict(next_steps(decided, GATE))
    assert steps["accept a lower recall"] == "--gate default=0.7,covid=0.85"
    assert steps["train longer"] == "--epochs large=NUMBER"
    assert "switch a rule off, if you know why" not in steps


@pytest.mark.parametrize(
    ("rule", "value", "off"), [("in-lungs", 0.5, 0.0), ("age-told", 1.0, math.inf)]
)
def test_a_gate_that_is_proposed_lets_the_candidate_pass(rule, value, off):
    decided = decision(candidate("large", covid=0.95, normal=0.9), broken={rule: value})
    steps = dict(next_steps(decided, GATE))
    option = steps["switch a rule off, if you know why"].removeprefix("--gate ")
    assert rules.parse(option) == {**rules.parse(GATE), rule: off}
    assert "train longer" not in steps


def test_a_lower_end_that_is_proposed_lets_the_candidate_pass():
    gate = "covid=0.9,covid-low=0.85,default=0.5"
    told = candidate("large", covid=0.95, normal=0.9)
    told["per_class"]["covid"]["recall"]["low"] = 0.71
    decided = decide([told], rules.parse(gate))
    option = dict(next_steps(decided, gate))["accept a lower recall"].removeprefix("--gate ")
    assert option == "covid=0.9,default=0.5,covid-low=0.7"
    assert decide([told], rules.parse(option))["winner"] == "large"


def test_a_quick_network_is_not_trained_longer_but_whole():
    decided = decision(candidate("cnn-dubey+lungs+quick", covid=0.5, normal=0.9))
    steps = dict(next_steps(decided, GATE))
    assert steps["train the paper's network"] == "--recipes cnn-dubey+lungs, without --quick"
    assert "show the network the lungs alone" not in steps


def test_a_network_that_sees_whole_images_can_be_shown_the_lungs():
    steps = dict(next_steps(decision(candidate("cnn-dubey+balanced", covid=0.5)), GATE))
    assert steps["show the network the lungs alone"] == "--recipes cnn-dubey+lungs+balanced"


def test_a_class_without_test_images_has_no_threshold_to_lower():
    decided = decision(candidate("large", covid=None, normal=0.9))
    assert "accept a lower recall" not in dict(next_steps(decided, GATE))
