import numpy as np
import pandas as pd

from components.data.shared_ground import age_groups, grounded, shared_ground, warning


def table(*rows: tuple[str, float | None, str, str, int]) -> pd.DataFrame:
    """Rows of source, age, label, split and number of images, two of each patient."""
    images = [
        {
            "source": source, "origin": "", "age": age, "label": label, "split": split,
            "patient": f"{at}-{i // 2}",
        }
        for at, (source, age, label, split, count) in enumerate(rows)
        for i in range(count)
    ]  # fmt: skip
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
        "normal": [{"source": "clinic", "age_group": "adult", "covid": 6, "others": 5}],
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
    for count, said in ((18, "share source and age group with covid: 9 of normal."), (20, "")):
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


def test_unknown_ages_share_no_ground_and_a_warning_asks_for_them() -> None:
    rows = [("clinic", None, label, "test", 40) for label in ("covid", "normal")]
    found = shared_ground(table(*rows))
    assert found["shared"] == {"normal": []}
    assert warning(found).endswith("unknown age do not count: add their ages if you know them.")
    known = [("clinic", 50, "covid", "test", 40), ("nih", 50, "normal", "test", 40)]
    assert "unknown age" not in warning(shared_ground(table(*known)))


def test_of_a_given_source_that_names_places_those_are_the_ground() -> None:
    images = table(
        *((source, 50, label, "test", 6) for source in ("covid-chestxray", "nih", "clinic")
          for label in ("covid", "normal")),
    )  # fmt: skip
    images["origin"] = "Berlin"
    images.loc[images["source"] == "nih", "origin"] = ""
    images.loc[images.index[-1], "origin"] = "Rome"
    images.loc[images.index[-2], "origin"] = None
    known = grounded(images)
    assert len(known) == len(images) - 1
    assert set(known["source"]) == {"covid-chestxray", "nih", "clinic/Berlin", "clinic/Rome"}
    shared = shared_ground(images)["shared"]["normal"]
    assert [row["source"] for row in shared] == ["clinic/Berlin", "covid-chestxray", "nih"]
