import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.trust.gate import decide, gate
from components.trust.rules import RULES, judged, parse, verdict
from core.artifacts import Trust
from core.errors import UserError
from core.files import write_json
from core.locations import location
from serving.verdict import of_winner


def candidate(recipe: str, macro_f1: float = 0.8, **recalls: float | None) -> dict:
    return {
        "recipe": recipe,
        "starting_point": "from scratch",
        "classes": list(recalls),
        "macro_f1": macro_f1,
        "per_class": {
            name: {"recall": {"value": value, "low": value, "high": value}}
            for name, value in recalls.items()
        },
    }


def validated(one: dict, covid: float, macro_f1: float = 0.8) -> dict:
    """A candidate with figures of the validation split."""
    recall = {"value": covid, "low": covid, "high": covid}
    return {**one, "validation": {"images": 40, "covid_recall": recall, "macro_f1": macro_f1}}


GATE = {"covid": 0.9, "default": 0.7}


def behind(decision: dict) -> list[str]:
    return [row["behind"] for row in decision["candidates"]]


def test_of_those_that_pass_the_highest_recall_of_covid_on_validation_wins() -> None:
    decision = decide(
        [
            validated(candidate("a", 0.9, covid=0.99), 0.92, 0.9),
            validated(candidate("b", 0.7, covid=0.91), 0.95, 0.7),
            validated(candidate("refused", covid=0.5), 1.0),
        ],
        GATE,
    )
    assert decision["winner"] == "b"
    assert decision["reason"] == (
        "Of the 2 candidates that pass the gate, b has the highest recall of covid on the validation split."
    )
    assert behind(decision) == [
        "its recall of covid on the validation split is lower than that of b", "", "",
    ]  # fmt: skip
    assert decision["candidates"][0]["validation"]["covid_recall"]["value"] == 0.92


def test_then_the_highest_macro_f1_on_validation() -> None:
    alike = [
        validated(candidate("a", 0.9, covid=0.99), 0.95, 0.7),
        validated(candidate("b", 0.7, covid=0.91), 0.95, 0.9),
    ]
    for order in (alike, alike[::-1]):
        decision = decide(order, GATE)
        assert decision["winner"] == "b"
        assert decision["reason"] == (
            "Of the 2 candidates that pass the gate, b has the highest macro F1 on the validation split "
            "among the 2 with the highest recall of covid there."
        )
        assert sorted(behind(decision)) == [
            "",
            "its recall of covid on the validation split is that of b, its macro F1 there is lower",
        ]


def test_then_the_first() -> None:
    alike = [validated(candidate(name, covid=0.95), 0.9) for name in ("a", "b")]
    decision = decide(alike, GATE)
    assert decision["winner"] == "a"
    assert decision["reason"] == (
        "The 2 candidates that pass the gate have the same recall of covid and macro F1 on the validation "
        "split; a comes first."
    )
    assert behind(decision) == [
        "",
        "its recall of covid and its macro F1 on the validation split are those of a, which comes first",
    ]


@pytest.mark.parametrize("validation", [{}, {"validation": None}])
def test_where_one_lacks_figures_of_validation_all_are_compared_on_the_test_split(
    validation: dict,
) -> None:
    decision = decide(
        [
            validated(candidate("a", covid=0.92), 0.99),
            {**candidate("b", covid=0.95), **validation},
        ],
        GATE,
    )
    assert decision["winner"] == "b"
    assert decision["reason"] == (
        "Of the 2 candidates that pass the gate, b has the highest recall of covid on the test split. Not "
        "all of them have figures of the validation split."
    )
    assert "on the test split is lower" in behind(decision)[0]


def test_figures_that_a_refused_candidate_lacks_are_not_missed() -> None:
    passing = [
        validated(candidate("a", covid=0.95), 0.9),
        validated(candidate("b", covid=0.92), 0.99),
    ]
    decision = decide([*passing, candidate("refused", covid=0.1)], GATE)
    assert decision["winner"] == "b"


def test_every_class_must_reach_its_threshold() -> None:
    decision = decide([candidate("a", covid=1.0, normal=0.69, viral=0.7)], GATE)
    (row,) = decision["candidates"]
    assert decision["winner"] is None
    assert row["reasons"] == ["recall of normal 69.0 % is under 70.0 %"]
    assert [check["passed"] for check in row["checks"]] == [True, False, True]


def test_the_threshold_itself_is_enough() -> None:
    assert decide([candidate("a", covid=0.9, normal=0.7)], GATE)["winner"] == "a"


def test_one_that_passes_alone_wins_over_a_refused_one_with_more_recall() -> None:
    decision = decide(
        [candidate("a", covid=1.0, normal=0.1), candidate("b", covid=0.9, normal=0.9)], GATE
    )
    assert decision["winner"] == "b"
    assert decision["reason"] == "b alone passes the gate."


def test_no_candidate_passing_is_a_decision_too() -> None:
    decision = decide([candidate("a", covid=0.1), candidate("b", covid=0.2)], GATE)
    assert decision["winner"] is None
    assert decision["reason"].startswith("None of 2 candidates passes")


def test_a_class_without_a_test_image_is_refused() -> None:
    (row,) = decide([candidate("a", covid=1.0, normal=None)], GATE)["candidates"]
    assert row["reasons"] == ["no test image of class normal"]


def test_a_candidate_must_tell_every_class_that_the_gate_names() -> None:
    (row,) = decide([candidate("a", covid=1.0, normal=1.0)], {**GATE, "viral": 0.5})["candidates"]
    assert row["reasons"] == ["does not have class viral, which the gate names"]


recalls = st.fixed_dictionaries({"covid": st.floats(0, 1), "normal": st.floats(0, 1)})


@given(st.lists(recalls, min_size=1, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_a_winner_passes_and_nobody_who_passes_has_more_covid_recall(found, covid, other) -> None:
    candidates = [candidate(str(i), **values) for i, values in enumerate(found)]
    decision = decide(candidates, {"covid": covid, "default": other})
    passing = [v["covid"] for v in found if v["covid"] >= covid and v["normal"] >= other]
    if decision["winner"] is None:
        assert not passing
    else:
        assert found[int(decision["winner"])]["covid"] == max(passing)


def audited(**found) -> dict:
    """An audit that keeps every rule, but for what is given."""
    whole = {
        "leaks": 0,
        "swaps": swapped(95, 5),
        "lung_free_explained": 0.1,
        "like_with_like": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}},
        "adults": {"false_alarms": {"value": 0.1}},
        "calibration": {"error": 0.05},
        "lowest_subgroup": {"recall": {"value": 0.8}},
        "external": [],
    }
    return {**whole, **found}


def swapped(lungs: int, surroundings: int, control: float = 1.0) -> dict:
    either = lungs + surroundings
    return {
        "pairs": either,
        "lungs": lungs,
        "surroundings": surroundings,
        "follows": {"value": lungs / either if either else None},
        "control": {"value": control if either else None},
    }


def elsewhere(
    judged_patients: dict[str, int],
    drop: dict[str, float | None] | None = None,
    alarms: float | None = None,
    **found,
) -> dict:
    """An external place with as many patients of each class and without covid."""
    return {
        "name": "far",
        "left_out": {"seen": 0, "unlabelled": 0, "unreadable": 0},
        "images": 50,
        "answered": 50,
        "judged_patients": judged_patients,
        "called_covid": {"value": alarms},
        "drop": {name: {"value": value} for name, value in (drop or {}).items()},
        **found,
    }


BROKEN: dict[str, tuple[dict, str]] = {
    "leaks": ({"leaks": 1}, "the patient or picture of 1 test images is in training"),
    "follows-lungs": ({"swaps": swapped(69, 31)}, "follows the lungs in 69 % of images"),
    "lung-free-explained": ({"lung_free_explained": 0.6}, "keeps 60 % of its accuracy"),
    "like-with-like": (
        {"like_with_like": {"auc": {"value": 0.9, "low": 0.58, "high": 1.0}}},
        "as low as 0.58, at least 0.6 needed",
    ),
    "false-alarms": (
        {"adults": {"false_alarms": {"value": 0.4}}},
        "answers covid for 40 % of adults without covid",
    ),
    "calibration-error": ({"calibration": {"error": 0.2}}, "calibration error 0.20, at most 0.15"),
    "subgroup-recall": ({"lowest_subgroup": {"recall": {"value": 0.5}}}, "finds 50 % of covid"),
    "external-false-alarms": (
        {
            "external": [
                elsewhere({"others": others}, alarms=value)
                for others, value in ((20, 0.2), (20, 0.9), (19, 1.0), (0, None))
            ]
        },
        "answers covid for 90 % of images without covid, at most 30 %",
    ),
    "external-drop": (
        {
            "external": [
                elsewhere(
                    {"others": 0, "covid": 19, "normal": 20, "viral": 20},
                    {"covid": 0.9, "normal": 0.4, "viral": None},
                )
            ]
        },
        "is lower by 0.40, at most 0.25",
    ),
}
NEEDED: dict[str, dict] = {
    "follows-lungs": {"swaps": swapped(0, 0)},
    "lung-free-explained": {"lung_free_explained": None},
    "like-with-like": {"like_with_like": {"auc": None}},
    "false-alarms": {"adults": {"false_alarms": {"value": None}}},
    "external-false-alarms": {
        "external": [
            elsewhere({"others": 0}),
            elsewhere({"others": 2, "normal": 2}, {"normal": 0.9}, alarms=1.0),
        ]
    },
}


def judged_as(**found) -> dict:
    return verdict(judged(audited(**found)))


def test_a_model_is_trusted_if_every_rule_is_kept() -> None:
    assert judged_as() == {"verdict": "trusted", "reasons": []}
    # At its bound a rule is kept.
    kept = judged_as(swaps=swapped(70, 30), lung_free_explained=0.5, calibration={"error": 0.15})
    assert kept["verdict"] == "trusted"


def test_a_model_that_breaks_a_rule_is_not_trusted() -> None:
    assert set(BROKEN) == {rule.name for rule in RULES}
    for name, (found, reason) in BROKEN.items():
        (broken,) = (row for row in judged(audited(**found)) if row["outcome"] == "broken")
        assert broken["name"] == name
        said = judged_as(**found)
        assert said["verdict"] == "not trusted"
        (only,) = said["reasons"]
        assert reason in only
        assert len(only) < 120


def test_what_cannot_be_judged_leaves_a_model_unproven_and_says_what_would_help() -> None:
    assert set(NEEDED) == {
        rule.name for rule in RULES for found in NEEDED.values() if rule.lacking(audited(**found))
    }
    for name, found in NEEDED.items():
        said = judged_as(**found)
        assert said["verdict"] == "unproven"
        (rule,) = (rule for rule in RULES if rule.name == name)
        assert said["reasons"] == [rule.lacking(audited(**found))]
    assert "--source" in judged_as(**NEEDED["like-with-like"])["reasons"][0]
    # Subgroups and other places are not needed.
    assert judged_as(lowest_subgroup=None)["verdict"] == "trusted"


def test_swaps_say_nothing_if_few_answers_follow_either_or_seams_confuse() -> None:
    assert judged_as(swaps=swapped(12, 7))["verdict"] == "unproven"
    assert judged_as(swaps=swapped(12, 8))["verdict"] == "not trusted"
    assert judged_as(swaps=swapped(10, 90, control=0.4))["verdict"] == "unproven"


@pytest.mark.parametrize(
    ("swaps", "because"),
    [
        (swapped(0, 0), "too few right answers with lungs found to swap surroundings"),
        (
            swapped(10, 90, control=0.499),
            "keeps 49 % of its answers in surroundings of the same class, so seams confuse it: at least 50 %",
        ),
        (
            {**swapped(12, 7), "pairs": 190},
            "only 19 of 190 answers about swapped images name the class of lungs or surroundings",
        ),
    ],
)
def test_each_cause_for_which_swaps_are_not_judged_is_said(swaps: dict, because: str) -> None:
    (reason,) = judged_as(swaps=swaps)["reasons"]
    assert reason.startswith(because)
    assert len(reason) < 130


def test_one_external_place_does_not_stand_for_another_that_cannot_be_judged() -> None:
    enough = elsewhere({"others": 40, "covid": 0}, alarms=0.1)
    of_covid = elsewhere({"others": 0, "covid": 20}, {"covid": 0.1})
    assert judged_as(external=[enough, of_covid])["verdict"] == "trusted"
    few = elsewhere(
        {"others": 3}, alarms=0.0, name="clinic", images=9, answered=4,
        left_out={"seen": 13, "unlabelled": 0, "unreadable": 2},
    )  # fmt: skip
    said = judged_as(external=[enough, few])
    assert said == {
        "verdict": "unproven",
        "reasons": [
            (
                "too few patients to judge in --external clinic (3; left out: 13 seen, 2 unreadable, "
                "5 abstained): 20 without covid, or of one class, needed"
            )
        ],
    }
    # What is broken in one place is broken, whatever another place lacks.
    bad = elsewhere({"others": 40}, alarms=0.5)
    assert judged_as(external=[few, bad])["verdict"] == "not trusted"
    small = elsewhere({"others": 19, "covid": 4}, name="b")
    (reason,) = judged_as(external=[few, small])["reasons"]
    assert "5 abstained) and b (19): 20 without" in reason


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"swaps": swapped(6999, 3001)}, "follows the lungs in 69 % of images"),
        ({"lung_free_explained": 0.5001}, "keeps 51 % of its accuracy"),
        ({"like_with_like": {"auc": {"low": 0.5999}}}, "as low as 0.59, at least 0.6"),
        ({"adults": {"false_alarms": {"value": 0.3001}}}, "covid for 31 % of adults"),
        ({"adults": {"false_alarms": {"value": 0.31}}}, "covid for 31 % of adults"),
        ({"calibration": {"error": 0.1501}}, "calibration error 0.16, at most 0.15"),
        ({"lowest_subgroup": {"recall": {"value": 0.5999}}}, "finds 59 % of covid"),
        ({"external": [elsewhere({"others": 20}, alarms=0.3001)]}, "covid for 31 % of images"),
        ({"external": [elsewhere({"others": 0, "covid": 20}, {"covid": 0.2501})]}, "lower by 0.26"),
    ],
)
def test_a_reason_never_rounds_a_broken_measure_to_its_bound(found: dict, said: str) -> None:
    (reason,) = judged_as(**found)["reasons"]
    assert said in reason


def test_a_broken_rule_counts_more_than_one_that_cannot_be_judged() -> None:
    said = judged_as(**NEEDED["false-alarms"], **BROKEN["leaks"][0])
    assert said == {"verdict": "not trusted", "reasons": [BROKEN["leaks"][1]]}


def test_of_many_reasons_the_three_worst_are_given_worst_first() -> None:
    said = judged_as(
        swaps=swapped(65, 35),
        lung_free_explained=0.95,
        calibration={"error": 0.16},
        leaks=2,
    )
    assert [reason.split()[0] for reason in said["reasons"]] == ["the", "keeps", "follows"]


ONE = candidate("a", covid=1.0, normal=1.0)
UNTRUSTED = audited(lung_free_explained=0.9)
UNPROVEN = audited(**NEEDED["like-with-like"])


@pytest.mark.parametrize("audit", [UNTRUSTED, UNPROVEN])
def test_trust_that_is_enforced_refuses_all_but_trusted_candidates(audit: dict) -> None:
    flagged = decide([ONE], GATE, audits=[audit])
    assert flagged["winner"] == "a"
    assert flagged["candidates"][0]["trust"] == verdict(judged(audit))
    enforced = decide([ONE], GATE, audits=[audit], trust=Trust.ENFORCE)
    assert enforced["winner"] is None
    (reason,) = enforced["candidates"][0]["reasons"]
    trust = enforced["candidates"][0]["trust"]
    assert reason == f"{trust['verdict']}: {trust['reasons'][0]}"
    assert decide([ONE], GATE, audits=[audited()], trust=Trust.ENFORCE)["winner"] == "a"
    assert decide([ONE], GATE, trust=Trust.ENFORCE)["winner"] is None


def test_of_those_that_pass_the_most_trusted_wins() -> None:
    both = [
        validated(candidate("better", covid=0.99), 0.99),
        validated(candidate("trusted", covid=0.95), 0.95),
    ]
    decision = decide(both, GATE, audits=[UNPROVEN, audited()])
    assert decision["winner"] == "trusted"
    assert (
        decision["reason"] == "trusted is the most trusted of the 2 candidates that pass the gate."
    )
    assert behind(decision) == ["trusted is trusted more", ""]


def test_of_several_that_are_trusted_most_the_highest_recall_wins() -> None:
    three = [
        validated(candidate("best", covid=0.99), 0.99),
        validated(candidate("one", covid=0.95), 0.95),
        validated(candidate("two", covid=0.95), 0.96),
    ]
    decision = decide(three, GATE, audits=[UNPROVEN, audited(), audited()])
    assert decision["winner"] == "two"
    assert decision["reason"] == (
        "Of the 3 candidates that pass the gate, 2 are trusted most; of these, two has the highest recall "
        "of covid on the validation split."
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "passes"),
    [
        (audited(), "trusted", True),
        (UNPROVEN, "trusted", False),
        (UNTRUSTED, "unproven", False),
        (UNPROVEN, "unproven", True),
        (UNPROVEN, "not trusted", True),
    ],
)
def test_a_less_trusted_candidate_never_replaces_the_champion(
    ours: dict, theirs: str, passes: bool
) -> None:
    even = {"covid_recall": [1.0, 1.0], "accuracy": [1.0, 1.0], "images": 9, "version": "3"}
    duel = {**even, "trust": {"verdict": theirs, "reasons": []}}
    decision = decide([ONE], GATE, duels=[duel], audits=[ours])
    assert (decision["winner"] == "a") == passes
    if not passes:
        assert (
            f"while version 3, which is served, is {theirs}"
            in decision["candidates"][0]["reasons"][0]
        )


@pytest.mark.parametrize("ours", [audited(), UNPROVEN, UNTRUSTED])
def test_a_champion_without_a_verdict_outranks_no_candidate_that_was_audited(ours: dict) -> None:
    old = of_winner({"winner": "old", "candidates": [{"recipe": "old"}]})
    assert old == {"verdict": "unproven", "reasons": ["it was published without a verdict"]}
    even = {"covid_recall": [1.0, 1.0], "accuracy": [1.0, 1.0], "images": 9, "version": "3"}
    assert decide([ONE], GATE, duels=[{**even, "trust": old}], audits=[ours])["winner"] == "a"


def test_a_gate_is_written_as_names_and_numbers() -> None:
    assert parse("covid=0.95, default=0.8") == {"covid": 0.95, "default": 0.8}
    assert parse("viral=0.5") == {"viral": 0.5, "default": 0.7}


@pytest.mark.parametrize(
    "text", ["covid", "covid=high", "covid=1.2", "covid=-0.1", "covid=nan", "=0.5", "covd=0.9",
             "covid=0.9,covid=0.8", "covid-low=1", "follows-lungs=0.5"],
)  # fmt: skip
def test_what_is_no_gate_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"^gate: "):
        parse(text)


def test_the_decision_is_written_with_its_reasons(evaluation: Path, tmp_path: Path) -> None:
    decision = gate([evaluation], {"default": 1.0}, tmp_path / "decision")
    assert json.loads((tmp_path / "decision").read_text()) == decision
    assert decision["gate"] == {"default": 1.0}


def test_the_lower_end_of_an_interval_can_be_asked_for() -> None:
    sure, unsure = candidate("sure", covid=0.92), candidate("unsure", covid=0.95)
    sure["per_class"]["covid"]["recall"]["low"] = 0.88
    unsure["per_class"]["covid"]["recall"]["low"] = 0.79
    decision = decide([sure, unsure], parse("covid=0.9,default=0.7,covid-low=0.85"))
    assert decision["winner"] == "sure"
    assert decision["candidates"][1]["reasons"] == [
        "recall of covid may be as low as 79.0 % (the lower end of its 95 % interval), under 85.0 %"
    ]
    assert decide([unsure], parse("covid=0.9,default-low=0.75"))["winner"] == "unsure"


def examples_of(directory: Path, **changes: str) -> Path:
    """The output of `ingest` of four images, two of them of the test split; changes: SHA-256s by id."""
    directory.mkdir()
    rows = [("c", "train"), ("b", "test"), ("d", "validation"), ("a", "test")]
    pd.DataFrame(
        [(name, changes.get(name, f"of {name}"), split) for name, split in rows],
        columns=["id", "sha256", "split"],
    ).to_parquet(directory / "examples.parquet")
    return directory


@pytest.fixture
def judged_one(tmp_path: Path) -> Path:
    write_json(tmp_path / "evaluation" / "metrics.json", candidate("a", covid=0.95))
    return tmp_path / "evaluation"


def test_what_a_test_split_has_decided_is_counted_once_a_run(
    judged_one: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"

    def decided_before(run: str, examples: Path) -> int:
        decision = gate(
            [judged_one], GATE, tmp_path / "decision",
            examples=examples, archive=archive, run=run,
        )  # fmt: skip
        assert json.loads((tmp_path / "decision").read_text()) == decision
        return decision["test_split"]["decided_before"]

    first = examples_of(tmp_path / "first")
    assert [decided_before(run, first) for run in ("1", "2", "2", "3")] == [0, 1, 1, 2]
    # Half-written files of a run that was killed are none.
    (split,) = (archive / "decisions").iterdir()
    (split / f".{'0' * 64}.json.1.tmp").write_text("{")
    assert decided_before("4", first) == 3
    entries = [json.loads(file.read_text()) for file in split.glob("*.json") if file.name[0] != "."]
    assert sorted(entry["run"] for entry in entries) == ["1", "2", "3", "4"]
    assert all(entry["recipes"] == ["a"] and entry["decided"] for entry in entries)
    # Other images of the other splits leave the count, those of the test split begin another.
    assert decided_before("5", examples_of(tmp_path / "trained", c="other", d="other")) == 4
    assert decided_before("6", examples_of(tmp_path / "tested", a="other")) == 0


def test_two_decisions_at_once_are_both_counted(judged_one: Path, tmp_path: Path) -> None:
    examples = examples_of(tmp_path / "examples")

    def decide_in(run: int) -> None:
        gate(
            [judged_one], GATE, tmp_path / f"decision-{run}",
            examples=examples, archive=tmp_path / "archive", run=str(run),
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decide_in, range(8)))
    last = gate(
        [judged_one], GATE, tmp_path / "decision",
        examples=examples, archive=tmp_path / "archive", run="last",
    )  # fmt: skip
    assert last["test_split"]["decided_before"] == 8


def test_decisions_are_counted_in_an_object_store_too(
    judged_one: Path, bucket: str, tmp_path: Path
) -> None:
    examples = examples_of(tmp_path / "examples")
    found = [
        gate(
            [judged_one], GATE, tmp_path / "decision",
            examples=examples, archive=location(f"{bucket}/decided"), run=run,
        )["test_split"]["decided_before"]
        for run in ("1", "2", "2", "3")
    ]  # fmt: skip
    assert found == [0, 1, 1, 2]


def test_without_an_archive_nothing_is_counted(judged_one: Path, tmp_path: Path) -> None:
    examples = examples_of(tmp_path / "examples")
    decision = gate([judged_one], GATE, tmp_path / "decision", examples=examples, run="1")
    assert decision["test_split"]["decided_before"] is None
    assert len(decision["test_split"]["digest"]) == 64
