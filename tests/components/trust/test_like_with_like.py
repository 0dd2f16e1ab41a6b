import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from components.trust.like_with_like import alarms_of_adults, like_with_like


def images(source: str, truth: str, age: float, count: int) -> pd.DataFrame:
    patients = [f"{source}/{truth}/{age}/{number}" for number in range(count)]
    return pd.DataFrame({"source": source, "truth": truth, "age": age, "patient": patients})


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
def test_ten_images_of_each_side_are_needed(count: int) -> None:
    table = pd.concat([images("a", "covid", 50, 30), images("a", "normal", 50, count)])
    table = table.reset_index(drop=True)
    assert (like_with_like(table, scored(table, 3))["auc"] is not None) == (count == 10)


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
    assert (found["images"], found["false_alarms"]["value"]) == (12, 0.25)
    assert alarms_of_adults(table.iloc[3:])["false_alarms"]["value"] is None
