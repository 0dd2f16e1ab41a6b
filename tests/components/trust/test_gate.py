import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.trust.gate import decide, gate
from components.trust.rules import AGE_PROBE, RULE_NAMES, RULES, parse
from core.errors import UserError
from core.files import write_json
from core.locations import location


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
    assert "highest recall of covid of the 2 that do, on the validation split" in decision["reason"]
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
        assert sorted(behind(decision)) == [
            "",
            "its recall of covid on the validation split is that of b, its macro F1 there is lower",
        ]


def test_then_the_first() -> None:
    alike = [validated(candidate(name, covid=0.95), 0.9) for name in ("a", "b")]
    decision = decide(alike, GATE)
    assert decision["winner"] == "a"
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
    assert "of the 2 that do, on the test split" in decision["reason"]
    assert "not all of them have figures of the validation split" in decision["reason"]
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
        "explained": {"frame probe": 0.2, "lungs blanked": 0.1},
        "attribution": {"all": {"focus": 1.6}},
        "calibration": {"error": 0.05},
        "lowest_subgroup": {"recall": {"value": 0.8}},
        "same_source": {"false_alarms": {"value": 0.1}},
        "probes": [],
        "external": [],
    }
    return {**whole, **found}


def test_of_frames_counts_what_is_more_the_probe_or_the_candidate_itself() -> None:
    (rule,) = (one for one in RULES if one.name == "frame-explained")
    both = {"frame probe": 0.1, "frame alone": 0.7}
    assert rule.measure(audited(explained=both)) == 0.7
    assert rule.measure(audited(explained={**both, "frame probe": 0.9})) == 0.9
    assert rule.measure(audited(explained=dict.fromkeys(both))) is None


BROKEN = {
    "leaks": ({"leaks": 1}, "in training is 1.00, over 0"),
    "frame-explained": (
        {"explained": {"frame probe": 0.9, "lungs blanked": 0.1}},
        "without seeing lungs is 0.90, over 0.5",
    ),
    "lung-free-explained": (
        {"explained": {"frame probe": 0.2, "lungs blanked": 0.6}},
        "lungs are blanked is 0.60, over 0.5",
    ),
    "in-lungs": ({"attribution": None}, "could not be measured"),
    "calibration-error": ({"calibration": {"error": 0.2}}, "calibration error is 0.20, over 0.15"),
    "subgroup-recall": ({"lowest_subgroup": {"recall": {"value": 0.5}}}, "is 0.50, under 0.6"),
    "external-false-alarms": (
        {
            "external": [
                {"called_covid": {"value": value}, "counts": {}, "drop": {}}
                for value in (0.2, 0.9, None)
            ]
        },
        "is 0.90, over 0.3",
    ),
    "age-told": (
        {"probes": [{"what": "source of normal", "auc": 1.0}, {"what": AGE_PROBE, "auc": 0.95}]},
        "adults from children is 0.95, over 0.9",
    ),
    "external-drop": (
        {
            "external": [
                {
                    "called_covid": {"value": None},
                    "counts": {"covid": 19, "normal": 20, "viral": 20},
                    "drop": {
                        "covid": {"value": 0.9},
                        "normal": {"value": 0.4},
                        "viral": {"value": None},
                    },
                }
            ]
        },
        "is 0.40, over 0.25",
    ),
    "false-alarms": ({"same_source": {"false_alarms": {"value": 0.7}}}, "is 0.70, over 0.5"),
}


def test_a_candidate_must_keep_every_rule_of_trust() -> None:
    one = candidate("a", covid=1.0, normal=1.0)
    assert decide([one], parse(""), audits=[audited()])["winner"] == "a"
    assert set(BROKEN) == set(RULE_NAMES)
    for name, (found, reason) in BROKEN.items():
        decision = decide([one], parse(""), audits=[audited(**found)])
        assert decision["winner"] is None
        (said,) = decision["candidates"][0]["reasons"]
        assert reason in said
        (broken,) = (row for row in decision["candidates"][0]["rules"] if not row["passed"])
        assert broken["name"] == name
        off = parse(f"{name}={'0' if broken['at_least'] else 'inf'}")
        decision = decide([one], off, audits=[audited(**found)])
        assert decision["winner"] == "a"
        assert "Infinity" not in json.dumps(decision)


def test_what_few_images_cannot_show_refuses_nobody() -> None:
    one = candidate("a", covid=1.0, normal=1.0)
    few = audited(lowest_subgroup=None, same_source=None)
    assert decide([one], parse(""), audits=[few])["winner"] == "a"


def test_a_gate_is_written_as_names_and_numbers() -> None:
    rules = {rule.name: rule.bound for rule in RULES}
    assert parse("covid=0.95, default=0.8") == {"covid": 0.95, "default": 0.8, **rules}
    assert parse("viral=0.5")["default"] == 0.7
    assert parse("in-lungs=1.5")["in-lungs"] == 1.5


@pytest.mark.parametrize(
    "text", ["covid", "covid=high", "covid=1.2", "covid=-0.1", "covid=nan", "=0.5", "covd=0.9",
             "covid=0.9,covid=0.8", "covid-low=1", "in-lungs=inf", "calibration-error=-1"],
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
