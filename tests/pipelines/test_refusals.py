from collections.abc import Sequence

import pytest

from components.trust import rules
from components.trust.gate import decide
from core.artifacts import Trust
from pipelines.refusals import next_steps, refusals
from tests.components.trust.test_gate import UNPROVEN, UNTRUSTED, audited, swapped
from training.recipes import RECIPES

GATE = "covid=0.9,default=0.7"
DEPLOY = "deploy it with its verdict"
MIX, LUNGS = "mix the surroundings in training", "show the network the lungs alone"


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


def decision(*candidates: dict, audits: Sequence[dict] = (), champion: str = "") -> dict:
    """The decision of a gate that enforces trust; with a champion of that verdict."""
    duel = {
        "version": "3", "trust": {"verdict": champion, "reasons": []}, "images": 9,
        "covid_recall": [1.0, 1.0], "accuracy": [1.0, 1.0],
    }  # fmt: skip
    return decide(
        candidates,
        rules.parse(GATE),
        [duel] * len(candidates) if champion else (),
        audits or [audited()] * len(candidates),
        Trust.ENFORCE,
    )


def test_each_refused_candidate_has_one_line():
    decided = decision(
        candidate("small", covid=0.85, normal=0.9),
        candidate("large", covid=0.95, normal=0.9),
        audits=[UNPROVEN, UNTRUSTED],
    )
    told = dict(refusals(decided))
    assert told["small"].startswith(
        "recall of covid 85.0 % is under 90.0 %; unproven: too few test patients with covid and others"
    )
    assert told["large"].startswith("not trusted: keeps 90 % of its accuracy")


def test_what_can_be_tried_is_what_the_nearest_candidate_lacks():
    decided = decision(
        candidate("small", covid=0.1, normal=0.2), candidate("large", covid=0.87, normal=0.9)
    )
    steps = dict(next_steps(decided, GATE))
    assert steps["accept a lower recall"] == "--gate default=0.7,covid=0.85"
    assert steps["train longer"] == "--epochs large=NUMBER"
    assert DEPLOY not in steps


def test_many_reasons_against_a_verdict_are_one_fault():
    many = audited(leaks=2, lung_free_explained=0.9, calibration={"error": 0.4})
    poor = candidate("poor", covid=0.35, normal=0.3)
    good = candidate("good", covid=0.95, normal=0.9)
    steps = dict(next_steps(decision(poor, good, audits=[audited(), many]), GATE))
    assert steps[DEPLOY] == "--trust flag"
    assert "train longer" not in steps
    assert "accept a lower recall" not in steps
    # With the champion's verdict, too.
    steps = next_steps(decision(poor, good, audits=[audited(), many], champion="trusted"), GATE)
    assert "accept a lower recall" not in dict(steps)


def test_what_is_refused_for_trust_alone_can_be_deployed_with_its_verdict():
    large = candidate("large", covid=0.95, normal=0.9)
    steps = dict(next_steps(decision(large, audits=[UNPROVEN]), GATE))
    assert steps[DEPLOY] == "--trust flag"
    assert "train longer" not in steps
    served = dict(next_steps(decision(large, audits=[UNPROVEN], champion="unproven"), GATE))
    assert served[DEPLOY] == "--trust flag"


def test_what_is_trusted_less_than_the_champion_is_not_let_in_by_a_flag():
    large = candidate("large", covid=0.95, normal=0.9)
    decided = decision(large, audits=[UNPROVEN], champion="trusted")
    assert "version 3, which is served, is trusted" in dict(refusals(decided))["large"]
    assert DEPLOY not in dict(next_steps(decided, GATE))


@pytest.mark.parametrize(
    "broken", [{"swaps": swapped(40, 60)}, {"lung_free_explained": 0.9}], ids=["follows", "blanked"]
)
def test_against_shortcuts_there_are_variants(broken: dict):
    def steps(name: str, audit: dict, **more: str) -> dict:
        told = candidate(name, covid=0.95, normal=0.9)
        return dict(next_steps(decision(told, audits=[audit], **more), GATE))

    whole = steps("cnn-dubey+balanced", audited(**broken))
    assert whole[MIX] == "--recipes cnn-dubey+mixed-surroundings+balanced"
    assert whole[LUNGS] == "--recipes cnn-dubey+lungs+balanced"
    assert steps("cnn-dubey", audited(**broken), champion="unproven")[MIX]
    lungs = steps("cnn-dubey+lungs+quick", audited(**broken))
    assert lungs[MIX] == "--recipes cnn-dubey+lungs+mixed-surroundings"
    assert LUNGS not in lungs
    # The images of a frozen base cannot change.
    frozen = steps(next(name for name, one in RECIPES.items() if one.frozen), audited(**broken))
    assert LUNGS in frozen
    assert MIX not in frozen
    # Data that are missing are no shortcut.
    assert not {MIX, LUNGS} & set(steps("cnn-dubey", UNPROVEN))


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


def test_a_class_without_test_images_has_no_threshold_to_lower():
    decided = decision(candidate("large", covid=None, normal=0.9))
    assert "accept a lower recall" not in dict(next_steps(decided, GATE))
