import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data import splits
from core.divisions import fold_name
from core.errors import UserError
from core.labels import LABELS


def examples_of(count: int, seed: int, patients: int | None = None) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    number = np.arange(count)
    labels = np.array(LABELS)[number % len(LABELS)]
    patient = number if patients is None else random.integers(0, patients, count)
    return pd.DataFrame(
        {
            "id": [f"s/{i}" for i in number],
            "label": labels,
            "patient": [f"{label}-{p}" for label, p in zip(labels, patient, strict=True)],
            "sha256": [hashlib.sha256(str(i).encode()).hexdigest() for i in number],
            "perceptual_hash": [random.bytes(32).hex() for _ in number],
            "folder_split": random.choice(["train", "test", ""], count),
        }
    )


def flipped(perceptual_hash: str, bits: int) -> str:
    return f"{int(perceptual_hash, 16) ^ ((1 << bits) - 1):064x}"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), patients=st.integers(35, 90))
def test_nothing_that_belongs_together_is_split(seed: int, patients: int) -> None:
    examples = examples_of(320, seed, patients)
    # One patient under two ids, the same file twice, and the same picture nearly.
    random = np.random.default_rng(seed)
    for one, other in random.integers(0, len(examples), (10, 2)):
        examples.loc[other, "sha256"] = examples.loc[one, "sha256"]
    for one, other in random.integers(0, len(examples), (10, 2)):
        near = flipped(examples.loc[one, "perceptual_hash"], splits.NEAR_DUPLICATE_BITS)
        examples.loc[other, "perceptual_hash"] = near
    examples["split"] = splits.assign(examples, seed)
    assert examples.groupby("patient")["split"].nunique().max() == 1
    assert examples.groupby("sha256")["split"].nunique().max() == 1
    pairs = splits.near_duplicates(examples["perceptual_hash"])
    split = examples["split"].to_numpy()
    assert (split[pairs[:, 0]] == split[pairs[:, 1]]).all()
    assert splits.leakage(examples, seed).ours == 0


def test_every_label_has_its_share_of_every_split() -> None:
    examples = examples_of(800, 0)
    examples["split"] = splits.assign(examples, 0)
    shares = examples.groupby("label")["split"].value_counts(normalize=True).unstack()
    assert shares["train"].between(0.66, 0.74).all()
    assert shares["validation"].between(0.07, 0.13).all()
    assert shares["test"].between(0.17, 0.23).all()


def test_the_split_follows_from_the_seed_and_not_from_the_order_of_rows() -> None:
    examples = examples_of(400, 1, 120)
    examples["split"] = splits.assign(examples, 5)
    shuffled = examples.sample(frac=1, random_state=3)
    assert (splits.assign(shuffled, 5) == shuffled["split"]).all()
    assert (splits.assign(examples, 6) != examples["split"]).any()


def test_too_few_patients_of_a_label_are_an_error_that_names_it() -> None:
    examples = examples_of(400, 0)
    examples.loc[examples["label"] == "viral", "patient"] = "one"
    with pytest.raises(UserError, match="'viral' come from 1 unrelated"):
        splits.assign(examples, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 40))
def test_near_duplicates_are_what_counting_bits_finds(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    base = random.bytes(32).hex()
    hashes = [flipped(base, int(bits)) for bits in random.integers(0, 80, count)]
    hashes = [f"{int(h, 16) ^ (1 << int(random.integers(256))):064x}" for h in hashes]
    expected = {
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if (int(hashes[i], 16) ^ int(hashes[j], 16)).bit_count() <= splits.NEAR_DUPLICATE_BITS
    }
    found = splits.near_duplicates(pd.Series(hashes, dtype=str))
    assert {tuple(pair) for pair in found.tolist()} == expected


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_BLOCK", 3)
    hashes = pd.Series([np.random.default_rng(i).bytes(32).hex() for i in range(8)])
    hashes[7] = flipped(hashes[1], 5)
    assert splits.near_duplicates(hashes).tolist() == [[1, 7]]


def test_what_would_have_leaked_is_counted() -> None:
    examples = examples_of(400, 2)
    examples["patient"] = [f"p{i // 2 // 4 * 4 + i % 4}" for i in range(400)]  # two images each
    examples["folder_split"] = ["train" if i % 8 < 4 else "test" for i in range(400)]
    examples["split"] = splits.assign(examples, 0)
    leak = splits.leakage(examples, 0)
    assert leak.ours == 0
    assert leak.folders == leak.test[2] == 200, (
        "the twin of every test image is in the train folder"
    )
    assert 40 < leak.random <= leak.test[1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), folds=st.integers(2, 12))
def test_folds_hold_every_image_once_and_no_patient_twice(seed: int, folds: int) -> None:
    examples = examples_of(320, seed, patients=60)
    examples["split"] = splits.assign(examples, seed, folds=folds)
    names = {fold_name(number + 1, folds) for number in range(folds)}
    assert set(examples["split"]) == names
    assert examples.groupby("patient")["split"].nunique().max() == 1
    assert splits.leakage(examples, seed, folds=folds).ours == 0


@pytest.mark.parametrize("folds", [0, 4])
def test_a_random_split_leaks_and_is_counted(folds: int) -> None:
    examples = examples_of(320, 0, patients=40)
    examples["split"] = splits.assign(examples, 0, folds=folds, by="random")
    leak = splits.leakage(examples, 0, folds=folds)
    assert leak.ours == leak.random
    assert leak.ours > 20
    assert leak.test[0] == (320 if folds else 64)


def test_whole_places_are_held_out() -> None:
    examples = examples_of(400, 3)
    examples["source"] = ["one" if i % 2 else "other" for i in range(400)]
    examples["origin"] = [f"place-{i % 46}" if i < 350 else None for i in range(400)]
    by_patient, by_origin = (
        splits.assign(examples, 0, by=by) for by in (splits.PATIENT, splits.ORIGIN)
    )
    places = [examples["source"], examples["origin"]]
    assert by_patient.groupby(places).nunique().max() > 1
    assert by_origin.groupby(places).nunique().max() == 1
    assert by_origin.groupby(examples["patient"]).nunique().max() == 1
    assert set(by_origin) == {"train", "validation", "test"}


def test_images_of_one_picture_or_patient_show_one_person() -> None:
    rows = pd.DataFrame(
        {
            "patient": ["b/2", "a/1", "b/2", "c/3"],
            "sha256": ["x", "x", "y", "z"],
            "perceptual_hash": [f"{number:064x}" for number in (0, 0, 2**120 - 1, 2**240 - 2**120)],
        },
        index=[7, 5, 3, 1],
    )
    assert splits.people(rows) == ["a/1", "a/1", "a/1", "c/3"]
