import numpy as np
import pandas as pd

from components.data.shared_ground import age_groups, shared_ground, warning


def table(*rows: tuple[str, float | None, str, str, int]) -> pd.DataFrame:
    """Rows of source, age, label, split and number of images, two of each patient."""
    images = [
        {"source": source, "age": age, "label": label, "split": split, "patient": f"{at}-{i // 2}"}
        for at, (source, age, label, split, count) in enumerate(rows)
        for i in range(count)
    ]
    return pd.DataFrame(images).astype({"age": float})


def test_kermanys_patients_are_children_and_others_are_what_their_age_says() -> None:
    sources = ["kermany", "nih", "nih", "nih"]
    examples = pd.DataFrame({"source": sources, "age": [np.nan, 17.9, 18, np.nan]})
    assert list(age_groups(examples)) == ["child", "child", "adult", "unknown"]


def test_images_and_patients_are_counted_by_source_age_and_label() -> None:
    found = shared_ground(
        table(("clinic", 50, "covid", "train", 4), ("clinic", 50, "covid", "test", 2))
    )
    (row,) = found["counts"]
    assert (row["source"], row["age_group"], row["label"]) == ("clinic", "adult", "covid")
    assert row["train"] == {"images": 4, "patients": 2}
    assert row["test"] == {"images": 2, "patients": 1}


def test_ground_is_shared_within_one_source_and_age_group_of_the_test_split() -> None:
    found = shared_ground(
        table(
            ("clinic", 50, "covid", "test", 12),
            ("clinic", 60, "normal", "test", 10),
            ("clinic", 5, "bacterial", "test", 12),  # another age group
            ("nih", 50, "viral", "test", 12),  # another source
            ("clinic", 50, "viral", "train", 12),  # not to be tested
        )
    )
    assert found["shared"] == {
        "normal": [{"source": "clinic", "age_group": "adult", "covid": 12, "others": 10}],
        "bacterial": [],
        "viral": [],
    }
    assert warning(found).startswith(
        "covid shares no source and no age group with bacterial and viral here: no test on these data"
    )


def test_a_label_alone_is_warned_of() -> None:
    apart = shared_ground(
        table(("clinic", 50, "covid", "test", 20), ("kermany", None, "normal", "test", 20))
    )
    assert warning(apart).startswith("covid and normal share no source and no age group here: ")
    assert "Add a source (--source) that has adults without covid, or both." in warning(apart)


def test_little_shared_ground_is_warned_of_and_enough_is_not() -> None:
    for count, said in ((4, "share source and age group with covid: 4 of normal."), (10, "")):
        found = shared_ground(
            table(("nih", 50, "covid", "test", 20), ("nih", 40, "normal", "test", count))
        )
        assert said in warning(found)
        assert bool(warning(found)) == bool(said)


def test_without_covid_no_label_shares_ground() -> None:
    found = shared_ground(
        table(("nih", 50, "normal", "test", 20), ("nih", 50, "covid", "train", 9))
    )
    assert found["shared"] == {"normal": []}
