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


def decision(*candidates: dict, untrusted: bool = False) -> dict:
    """A decision of a gate that enforces trust."""
    trust = {"verdict": "unproven" if untrusted else "trusted", "reasons": ["no adults"]}
    decided = decide(candidates, rules.parse(GATE))
    for row in decided["candidates"]:
        row["trust"] = trust
        row["reasons"] += ["unproven: no adults"] if untrusted else []
        row["passed"] = not row["reasons"]
    return {**decided, "trust": "enforce"}


def test_each_refused_candidate_has_one_line():
    decided = decision(
        candidate("small", covid=0.85, normal=0.9),
        candidate("large", covid=0.95, normal=0.9),
        untrusted=True,
    )
    assert dict(refusals(decided)) == {
        "small": "recall of covid 85.0 % is under 90.0 %; unproven: no adults",
        "large": "unproven: no adults",
    }


def test_what_can_be_tried_is_what_the_nearest_candidate_lacks():
    decided = decision(
        candidate("small", covid=0.1, normal=0.2), candidate("large", covid=0.87, normal=0.9)
    )
    steps = dict(next_steps(decided, GATE))
    assert steps["accept a lower recall"] == "--gate default=0.7,covid=0.85"
    assert steps["train longer"] == "--epochs large=NUMBER"
    assert "deploy it with its verdict" not in steps


def test_what_is_refused_for_trust_alone_can_be_deployed_with_its_verdict():
    decided = decision(candidate("large", covid=0.95, normal=0.9), untrusted=True)
    steps = dict(next_steps(decided, GATE))
    assert steps["deploy it with its verdict"] == "--trust flag"
    assert "train longer" not in steps
    assert "deploy it with its verdict" not in dict(next_steps({**decided, "trust": "flag"}, GATE))


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
