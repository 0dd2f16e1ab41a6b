import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from components.trust.like_with_like import alarms_of_adults, like_with_like


def images(source: str, truth: str, age: float, count: int) -> pd.DataFrame:
    patients = [f"{source}/{truth}/{age}/{number}" for number in range(count)]
    return pd.DataFrame(
        {"source": source, "origin": "", "truth": truth, "age": age, "patient": patients}
    )


def scored(table: pd.DataFrame, shift: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, len(table))
    return noise + shift * (table["truth"] == "covid").to_numpy()


def test_a_model_of_the_source_or_of_age_is_no_better_than_chance() -> None:
    table = pd.concat(
        [
            images("a", "covid", 50, 60), images("a", "normal", 50, 20),
            images("b", "covid", 50, 20), images("b", "normal", 50, 60),
            images("b", "normal", 3, 90), images("c", "covid", 50, 30),
        ],
        ignore_index=True,
    )  # fmt: skip
    source = scored(table, 0) + 9 * (table["source"] != "b") - 9 * (table["age"] < 18)
    found = like_with_like(table, source.to_numpy())
    assert [(row["source"], row["age_group"], row["covid"], row["others"]) for row in found["ground"]] == [
        ("a", "adult", 60, 20), ("b", "adult", 20, 60),
    ]  # fmt: skip
    assert (found["covid"], found["others"]) == (80, 80)
    assert roc_auc_score(table["truth"] == "covid", source) > 0.8
    assert found["auc"]["low"] < 0.5 < found["auc"]["high"]
    assert like_with_like(table, scored(table, 2))["auc"]["low"] > 0.8


@pytest.mark.parametrize("count", [9, 10])
@pytest.mark.parametrize("few", ["covid", "normal"])
def test_ten_patients_of_each_side_are_needed(count: int, few: str) -> None:
    sizes = {"covid": 30, "normal": 30, few: count}
    # Each has two images.
    table = pd.concat(2 * [images("a", truth, 50, size) for truth, size in sizes.items()])
    table = table.reset_index(drop=True)
    assert (like_with_like(table, scored(table, 3))["auc"] is not None) == (count == 10)


def test_images_of_unknown_age_are_not_alike() -> None:
    """They could be of children on one side and of adults on the other."""
    table = pd.concat([images("a", "covid", np.nan, 30), images("a", "normal", np.nan, 30)])
    table = table.reset_index(drop=True)
    found = like_with_like(table, scored(table, 3))
    assert (found["ground"], found["auc"]) == ([], None)


def test_images_of_two_places_of_a_source_are_not_alike() -> None:
    table = pd.concat([images("a", "covid", 50, 30), images("a", "normal", 50, 30)])
    table["origin"] = np.where(table["truth"] == "covid", "Berlin", "Rome")
    table = table.reset_index(drop=True)
    assert like_with_like(table, scored(table, 3))["auc"] is None
    one = table.assign(origin="Berlin")
    assert like_with_like(one, scored(table, 3))["ground"][0]["source"] == "a/Berlin"
    assert like_with_like(one, scored(table, 3))["auc"]["low"] > 0.9


def test_without_shared_ground_there_is_nothing_to_compare() -> None:
    table = pd.concat([images("a", "covid", 50, 30), images("kermany", "normal", 3, 30)])
    found = like_with_like(table.reset_index(drop=True), np.arange(60) / 60)
    assert found == {"ground": [], "covid": 0, "others": 0, "auc": None}


def test_false_alarms_are_those_of_adults_of_any_source() -> None:
    table = pd.concat(
        [images("a", "normal", 50, 6), images("b", "viral", 70, 6), images("b", "normal", 3, 50),
         images("a", "covid", 50, 50)],
        ignore_index=True,
    )  # fmt: skip
    table["predicted"] = np.where(table.index < 3, "covid", "normal")
    found = alarms_of_adults(table)
    assert (found["images"], found["patients"], found["false_alarms"]["value"]) == (12, 12, 0.25)
    assert alarms_of_adults(table.iloc[3:])["false_alarms"]["value"] is None
    # Of nine patients, however many images.
    few = alarms_of_adults(pd.concat([table.iloc[3:]] * 4))
    assert (few["images"], few["patients"], few["false_alarms"]["value"]) == (36, 9, None)
