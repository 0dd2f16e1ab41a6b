import pandas as pd
import pytest

from bench import trust
from tests.components.trust import test_gate

NAMES = [setting.name.format("nih", "clinic") for setting in trust.SETTINGS]
NEAR, FAR = "00" * 32, "0f" * 32


def images(*splits: str) -> pd.DataFrame:
    """Returns two images of covid-chestxray and two of a clinic, whose first is a copy of their first."""
    return pd.DataFrame(
        {
            "source": ["covid-chestxray", "covid-chestxray", "clinic", "clinic"],
            "perceptual_hash": [NEAR, FAR, "01" + NEAR[2:], "f0" * 32],
            "split": splits,
        }
    )


def test_copies_are_counted_with_their_split() -> None:
    excluded = pd.DataFrame({"kind": ["related", "absent"], "source": ["clinic", "clinic"]})
    told = trust.duplicates(images("test", "train", "test", "train"), excluded, "clinic")
    assert "Of the 2 images of clinic that are used, 1 show" in told
    assert "1 in test." in told
    assert "to images of the test: 1 of clinic." in told


def test_a_copy_in_another_split_ends_the_run() -> None:
    excluded = pd.DataFrame({"kind": [], "source": []})
    with pytest.raises(RuntimeError, match="two splits"):
        trust.duplicates(images("test", "train", "train", "train"), excluded, "clinic")


def rule(name: str, value: float | None, bound: float, outcome: str, reason: str = "") -> dict:
    return {
        "name": name, "value": value, "bound": bound, "at_least": True,
        "outcome": outcome, "reason": reason,
    }  # fmt: skip


def audited(position: int, verdict: str, *rules: dict) -> dict:
    return {
        "position": position,
        "audit": {"rules": list(rules), "trust": {"verdict": verdict, "reasons": []}},
    }


def test_a_page_says_what_stood_in_the_way_and_by_how_much() -> None:
    rows = [
        audited(0, "not trusted", rule("follows-lungs", 0.55, 0.7, "broken"),
                rule("like-with-like", None, 0.6, "not judged", "too few images")),
        audited(1, "trusted", rule("follows-lungs", 0.8, 0.7, "kept"),
                rule("like-with-like", 0.6, 0.6, "kept")),
    ]  # fmt: skip
    broken, kept = trust.obstacles(rows, NAMES)
    assert "`follows-lungs` by 0.15 (0.55 instead of 0.7)" in broken
    assert "`like-with-like` is not judged (too few images)" in broken
    assert "*with nih*: nothing" in kept
    assert "None of 1 networks is trusted" in trust.nearest({"cnn": rows[:1]}, NAMES)
    assert trust.nearest({"cnn": rows}, NAMES) == "1 of 2 networks are trusted."
    (change,) = trust.changes(rows, NAMES)
    assert "from *two sources* to *with nih*" in change
    assert "`follows-lungs` from 0.55 (broken) to 0.80 (kept)" in change
    assert "`like-with-like` from not judged to 0.60 (kept)" in change


def test_a_setting_is_compared_with_the_one_that_it_extends() -> None:
    rows = [audited(position, "unproven") for position in (0, 2)]
    assert trust.changes(rows, NAMES) == ["- One setting alone was run."]


def test_a_rule_has_the_interval_of_what_it_measures() -> None:
    places = [
        {"called_covid": {"value": value, "low": value / 2, "high": 2 * value}, "drop": {}}
        for value in (0.2, 0.4)
    ]
    told = {
        "swaps": {"follows": {"value": 0.9, "low": 0.8, "high": 0.95}},
        "adults": {"false_alarms": {"value": None, "low": None, "high": None}},
        "lowest_subgroup": None,
        "external": places,
        "like_with_like": {"auc": {"value": 0.8, "low": 0.5, "high": 0.9}},
    }
    worst = rule("external-false-alarms", 0.4, 0.3, "broken")
    assert trust.measured(told, worst) == "**0.40** (0.20–0.80)"
    assert (
        trust.measured(told, rule("like-with-like", 0.5, 0.6, "broken")) == "**0.50** (0.50–0.90)"
    )
    assert trust.measured(told, rule("follows-lungs", 0.9, 0.7, "kept")) == "0.90 (0.80–0.95)"
    assert trust.measured(told, rule("false-alarms", None, 0.3, "not judged")) == "not judged"
    assert trust.measured(told, rule("leaks", 0.0, 0, "kept")) == "0"


def test_an_audit_is_judged_by_the_present_rules() -> None:
    old = test_gate.audited(
        lung_free_explained=0.843, rules=[], trust={"verdict": "trusted", "reasons": []}
    )
    now = trust.judged_again(old)
    assert now["trust"] == {
        "verdict": "not trusted",
        "reasons": ["keeps 84 % of its accuracy when the lungs are blanked, at most 50 % allowed"],
    }
    assert now["leaks"] == old["leaks"]
