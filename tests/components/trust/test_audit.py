"""Shortcuts that are planted must be found if a model uses them, and only then."""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from components.candidates.train import train
from components.data.phantoms import draw_with_lungs
from components.data.sources import listed
from components.trust.audit import (
    _abstention,
    _chance,
    _explained,
    _figures,
    audit,
    blanked,
    shown_otherwise,
)
from components.trust.rules import View
from core.errors import UserError
from core.labels import COVID
from tests.components.trust import planted
from training import lungs as segmenter
from training.recipes import recipe_named

# The network is small, so that a training takes seconds.
EPOCHS = 6


@pytest.fixture(scope="module")
def planted_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[planted.Change], Path]:
    """Makes examples and records with something planted, each once."""
    made: dict[str, Path] = {}

    def of(change: planted.Change) -> Path:
        if change.__name__ not in made:
            home = tmp_path_factory.mktemp("planted") / change.__name__
            planted.write(home, change)
            made[change.__name__] = home
        return made[change.__name__]

    return of


@pytest.fixture
def audited(
    planted_data: Callable[[planted.Change], Path], lungs: Path, tmp_path: Path
) -> Callable[..., dict]:
    def run(change: planted.Change, variant: str = "", seed: int = 0) -> dict:
        home = planted_data(change)
        recipe = dataclasses.replace(
            recipe_named(f"cnn-dubey{variant}"),
            input_size=(48, 48), epochs=EPOCHS, batch=8, quick=True,
        )  # fmt: skip
        train(
            recipe,
            home / "records",
            tmp_path / "model",
            tmp_path / "checkpoints",
            precision="float32",
            seed=seed,
            lungs=lungs,
        )
        return audit(
            tmp_path / "model", home / "records", home / "examples", lungs, tmp_path / "audit"
        )

    return run


def outcomes(found: dict, outcome: str) -> set[str]:
    return {row["name"] for row in found["rules"] if row["outcome"] == outcome}


@pytest.mark.parametrize("seed", range(5))
def test_a_model_of_data_without_a_shortcut_is_trusted(
    audited: Callable[..., dict], seed: int
) -> None:
    found = audited(planted.clean, seed=seed)
    assert found["trust"] == {"verdict": "trusted", "reasons": []}
    assert {"follows-lungs", "like-with-like", "false-alarms"} <= outcomes(found, "kept")


@pytest.mark.parametrize("change", [planted.marker, planted.brightness, planted.frame])
def test_a_model_that_uses_a_shortcut_is_not_trusted(
    audited: Callable[..., dict], change: planted.Change
) -> None:
    found = audited(change)
    assert found["views"][View.WHOLE]["balanced"] > 0.6
    assert found["trust"]["verdict"] == "not trusted"
    assert outcomes(found, "broken") & {"follows-lungs", "lung-free-explained"}


@pytest.mark.parametrize(
    ("change", "variant"),
    [
        (planted.marker, "+mixed-surroundings"),
        (planted.brightness, "+lungs"),
        (planted.frame, "+lungs"),
    ],
)
def test_a_model_of_the_same_data_that_does_not_use_it_is_trusted(
    audited: Callable[..., dict], change: planted.Change, variant: str
) -> None:
    found = audited(change, variant)
    assert found["trust"] == {"verdict": "trusted", "reasons": []}
    assert found["view"] == ("lungs" if variant == "+lungs" else "full")


def test_a_patient_on_both_sides_is_found(
    model: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    leaking = tmp_path / "examples"
    shutil.copytree(examples, leaking)
    table = pd.read_parquet(leaking / "examples.parquet")
    patient = table.loc[table["split"] == "train", "patient"].iloc[0]
    table.loc[table.index[table["split"] == "test"][0], "patient"] = patient
    table.to_parquet(leaking / "examples.parquet")
    found = audit(model, records, leaking, lungs, tmp_path / "audit")
    assert found["leaks"] == 1
    assert "leaks" in outcomes(found, "broken")
    assert found["trust"]["reasons"][0] == "the patient or picture of 1 test images is in training"


def test_a_test_image_that_an_earlier_version_was_made_with_is_found(
    model: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    """The training continued from a version of another archive, where that image was in training."""
    continued = tmp_path / "model"
    shutil.copytree(model, continued)
    table = pd.read_parquet(examples / "examples.parquet")
    made = table[table["split"].isin(["train", "validation"])]
    earlier = table[(table["split"] == "test") & (table["label"] == COVID)].iloc[:1]
    columns = ["id", "patient", "sha256", "perceptual_hash"]
    pd.concat([made, earlier])[columns].to_parquet(continued / "images.parquet")
    found = audit(continued, records, examples, lungs, tmp_path / "audit")
    assert found["leaks"] >= 1
    assert "leaks" in outcomes(found, "broken")


def test_a_version_that_does_not_say_what_it_was_made_with_is_not_trusted(
    version: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    silent = tmp_path / "version"
    shutil.copytree(version, silent)
    (silent / "images.parquet").unlink(missing_ok=True)
    found = audit(silent, records, examples, lungs, tmp_path / "audit")
    assert found["leaks"] is None
    assert found["trust"]["verdict"] != "trusted"
    assert "leaks" in outcomes(found, "not judged")
    assert "does not say which images" in (tmp_path / "audit" / "audit.html").read_text()


def test_copies_of_a_picture_under_other_names_make_no_interval_narrower(
    model: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("apart", "copies"):
        shutil.copytree(examples, tmp_path / name)
        table = pd.read_parquet(examples / "examples.parquet")
        tested = table.index[(table["split"] == "test") & (table["label"] == COVID)]
        table.loc[tested, "patient"] = [f"covid-chestxray/new {number}" for number in tested]
        table.loc[tested, "perceptual_hash"] = [
            np.random.default_rng(number).bytes(32).hex() for number in tested
        ]
        if name == "copies":
            table.loc[tested, "sha256"] = table.loc[tested[0], "sha256"]
        table.to_parquet(tmp_path / name / "examples.parquet")
        out = tmp_path / f"audit of {name}"
        views = audit(model, records, tmp_path / name, lungs, out)["views"]
        found.append(views[View.WHOLE]["recall"][COVID])
    apart, related = found
    assert related["value"] == apart["value"]
    # One picture tells no more than one patient does.
    assert related["low"] < apart["low"]
    assert related["high"] > apart["high"]


def test_images_that_a_version_was_made_with_say_nothing_of_it(
    version: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "version"
    shutil.copytree(version, whole)
    pd.read_parquet(examples / "examples.parquet")[["id"]].to_parquet(whole / "images.parquet")
    with pytest.raises(UserError, match="made with every image of the test split"):
        audit(whole, records, examples, lungs, tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_a_class_without_images_does_not_count_as_missed() -> None:
    view = _figures(answered("covid", "normal"), CLASSES)
    assert view["recall"]["normal"]["value"] is None
    assert view["balanced"] == 0.5


CLASSES = ("covid", "normal", "bacterial", "viral")


def answered(*predicted: str, truth: str = COVID) -> pd.DataFrame:
    patients = [f"{truth}/{number}" for number in range(len(predicted))]
    return pd.DataFrame({"truth": truth, "predicted": predicted, "patient": patients})


def test_chance_is_that_of_the_classes_that_have_images() -> None:
    """Of four classes two have images: who guesses one of them is right about half, not a quarter."""
    both = [
        answered(COVID, COVID, COVID, "normal"),
        answered("normal", "normal", "normal", COVID, truth="normal"),
    ]
    whole = _figures(pd.concat(both), CLASSES)
    assert _chance(whole) == 0.5
    assert _explained(0.5, whole["balanced"], _chance(whole)) == 0
    assert _explained(0.625, whole["balanced"], _chance(whole)) == pytest.approx(0.5)
    # One class alone: nothing is told from anything.
    one = _figures(answered(COVID, COVID), CLASSES)
    assert _explained(1.0, one["balanced"], _chance(one)) is None


def test_recall_that_is_compared_with_another_place_is_of_answered_images() -> None:
    table = pd.concat(
        [answered(COVID, COVID, "normal", "normal"), answered("normal", truth="normal")]
    )
    found = _abstention(np.array([0.5, 1.0, 2.0, 0.9, 3.0]), np.full((5, 4), 0.25), table, CLASSES)
    assert found["recall"]["covid"]["value"] == pytest.approx(2 / 3)
    assert found["recall"]["normal"]["value"] is None
    assert found["rejected"]["value"] == 2 / 5


def test_what_is_blanked_has_the_mean_of_the_rest() -> None:
    pixels = tf.random.uniform((3, 20, 24, 1), 0, 255, seed=0)
    mask = np.zeros((1, 20, 24, 1), np.float32)
    mask[:, 5:9, 3:17] = 1
    seen = blanked(pixels, mask).numpy()
    hidden = mask[0, ..., 0] == 1
    for before, after in zip(pixels.numpy()[..., 0], seen[..., 0], strict=True):
        assert np.array_equal(after[~hidden], before[~hidden])
        np.testing.assert_allclose(after[hidden], before[~hidden].mean(), rtol=1e-5)


def test_the_view_without_lungs_shows_no_pixel_of_them() -> None:
    found = np.zeros((1, 40, 40, 1), np.float32)
    found[:, 10:30, 8:16] = 1
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 200, (1, 40, 40, 1)).astype(np.float32)
    others = np.where(found == 1, random.uniform(0, 200, pixels.shape), pixels).astype(np.float32)
    one, other = (
        shown_otherwise(tf.constant(image), tf.constant(found))[View.LUNG_FREE]
        for image in (pixels, others)
    )
    np.testing.assert_array_equal(one, other)


def test_the_segmenter_finds_lungs_that_it_has_not_seen(lungs: Path) -> None:
    random = np.random.default_rng(5)
    dices = []
    for label in (COVID, "normal", "bacterial"):
        image, mask = draw_with_lungs(label, random)
        shown = []
        for picture in (image, mask):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            shown.append(segmenter.shown(buffer.getvalue())[np.newaxis])
        found = segmenter.find(segmenter.load(lungs), shown[0])
        dices.append(float(segmenter.dice((shown[1] > 127).astype(np.float32), found)))
    assert min(dices) > 0.85
    assert json.loads((lungs / "lungs.json").read_text())["dice"] > 0.85


def test_a_follow_up_image_of_a_trained_patient_says_nothing_of_a_version(
    version: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    """Newer data has an image of a patient, and a copy of a picture, that the version was made with."""
    table = pd.read_parquet(examples / "examples.parquet")
    test = table.index[(table["split"] == "test") & table["label"].isin([COVID, "normal"])]
    trained = table[table["split"] == "train"].iloc[0]
    made = table.loc[table["split"].isin(["train", "validation"])]
    whole, newer = tmp_path / "version", tmp_path / "examples"
    shutil.copytree(version, whole)
    made[["id", "patient", "sha256", "perceptual_hash"]].to_parquet(whole / "images.parquet")
    before = audit(whole, records, examples, lungs, tmp_path / "before")
    assert (before["images"], before["related"]) == (len(test), 0)
    shutil.copytree(examples, newer)
    table.loc[test[0], "patient"] = trained["patient"]
    near = bytearray.fromhex(trained["perceptual_hash"])
    near[0] ^= 0xFF
    table.loc[test[1], "perceptual_hash"] = near.hex()
    table.to_parquet(newer / "examples.parquet")
    for columns in (["id", "patient", "sha256", "perceptual_hash"], ["id", "sha256"]):
        made[columns].to_parquet(whole / "images.parquet")
        found = audit(whole, records, newer, lungs, tmp_path / f"audit-{len(columns)}")
        assert (found["images"], found["related"]) == (len(test) - 2, 2)


def test_another_place_is_asked_and_what_is_called_covid_there_is_counted(
    version: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(7)
    for folder, label in (("No_findings", "normal"), ("COVID-19", COVID), ("Lipoid", "normal")):
        (tmp_path / "place" / folder).mkdir(parents=True)
        for number in range(3):
            image, _ = draw_with_lungs(label, random)
            image.save(tmp_path / "place" / folder / f"{number}.png")
    # Of a published version, too, which leaves out what it was made with.
    place = listed.parse([f"there={tmp_path / 'place'}"])
    found = audit(version, records, examples, lungs, tmp_path / "audit", external=place)
    (row,) = found["external"]
    assert row["name"] == "there"
    assert row["left_out"] == {"seen": 0, "unlabelled": 0, "unreadable": 0, "of other views": 0}
    assert row["images"] == row["patients"] == 9
    assert row["answered"] == round(9 * (1 - row["abstained"]["value"]))
    assert set(row["counts"]) == {COVID, "normal"}
    # Lipoid pneumonia is none of the classes, and not covid.
    assert row["others"] == row["answered"] - row["counts"][COVID] > row["counts"]["normal"]
    assert row["judged_patients"] == {"others": row["others"], **row["counts"]}
    assert 0 <= row["called_covid"]["value"] <= 1
    for name in (COVID, "normal"):
        inside = found["abstention"]["recall"][name]["value"]
        assert row["drop"][name]["value"] == pytest.approx(inside - row["recall"][name]["value"])
        assert row["drop"][name]["low"] < row["drop"][name]["value"] < row["drop"][name]["high"]
    assert f"too few patients to judge in --external there ({row['others']}" in str(found["rules"])
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "<h2>External data</h2>" in page
    assert f'<th>there<td>covid<td class="number">{row["counts"][COVID]}<td>' in page
