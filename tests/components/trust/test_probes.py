"""What features of known content reveal."""

import numpy as np
import pandas as pd

from components.trust import probes


def table(per_kind: int = 20) -> pd.DataFrame:
    rows = [
        {
            "truth": truth,
            "source": source,
            "age": age,
            "patient": f"{truth}/{source}/{age}/{i // 2}",
        }
        for truth in ("covid", "normal")
        for source in ("a", "b")
        for age in (5.0, 50.0)
        for i in range(per_kind)
    ]
    return pd.DataFrame(rows)


def areas(features: np.ndarray, images: pd.DataFrame) -> dict[str, float]:
    return {row["what"]: row["auc"]["value"] for row in probes.probes(features, images)}


def test_what_features_hold_of_source_and_age_is_found() -> None:
    images = table()
    noise = np.random.default_rng(0).normal(0, 1, (len(images), 6))
    of_source, of_age = noise.copy(), noise.copy()
    of_source[:, 0] += 5 * (images["source"] == "b")
    of_age[:, 0] += 5 * (images["age"] > 18)
    source, age = areas(of_source, images), areas(of_age, images)
    of_adults = "adult or child, covid left out"
    assert set(source) == {"source of covid", "source of normal", of_adults}
    assert min(source["source of covid"], source["source of normal"], age[of_adults]) > 0.95
    assert max(source[of_adults], age["source of covid"], age["source of normal"]) < 0.75


def test_a_patient_is_never_in_two_folds() -> None:
    """Features that tell the patient, and nothing else, reveal no source."""
    images = table(8)
    number = np.unique(images["patient"], return_inverse=True)[1]
    of_patient = np.random.default_rng(0).normal(0, 1, (number.max() + 1, 40))[number]
    assert max(areas(of_patient, images).values()) < 0.8


def test_few_images_or_patients_reveal_nothing() -> None:
    images = table()
    features = np.zeros((len(images), 3))
    few = images["source"].eq("b") & (images.groupby(["truth", "source"]).cumcount() >= 7)
    assert not any("source" in what for what in areas(features[~few], images[~few]))
    one = images.assign(patient=images["patient"].where(images["source"] != "b", "one"))
    assert not any("source" in what for what in areas(features, one))


def test_a_sample_has_every_kind() -> None:
    many = pd.concat([table(300), table(2).assign(source="rare")], ignore_index=True)
    few = probes.sample(many)
    assert len(few) == 500
    assert (few["source"] == "rare").sum() == 16
    pd.testing.assert_frame_equal(few, probes.sample(many))
