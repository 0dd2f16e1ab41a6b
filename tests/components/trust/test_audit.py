"""Shortcuts that are planted must be found, and a set without them must pass."""

import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from components.candidates.train import train
from components.data import splits
from components.data.phantoms import draw_with_lungs
from components.data.sources import listed
from components.data.write_records import write_records
from components.trust import rules
from components.trust.audit import (
    _candidate,
    _figures,
    _frame_probe,
    _probes,
    _same_source,
    audit,
    blanked,
    shown_otherwise,
)
from components.trust.rules import View
from core.errors import UserError
from core.labels import COVID
from training import data
from training import lungs as segmenter
from training.recipes import recipe_named

# As many images of two classes as a small network needs to learn the sign in the lungs.
OF_EACH = 150


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Makes examples of phantoms, covid in one source and normal in the other, and their records."""
    random = np.random.default_rng(1)
    drawn = [(label, draw_with_lungs(label, random)[0]) for label in (COVID, "normal") * OF_EACH]

    def make(change: Callable[[Image.Image, str], Image.Image]) -> tuple[Path, Path]:
        home = tmp_path_factory.mktemp("planted")
        rows, sources = [], {"covid-chestxray": home / "covid", "kermany": home / "kermany"}
        for directory in sources.values():
            directory.mkdir()
        for number, (label, image) in enumerate(drawn):
            source = "covid-chestxray" if label == COVID else "kermany"
            name = f"{number:04d}.png"
            change(image, label).save(sources[source] / name)
            content = (sources[source] / name).read_bytes()
            rows.append(
                {
                    "id": f"{source}/{name}", "source": source, "path": name, "label": label,
                    "patient": f"{source}/{number}", "sha256": hashlib.sha256(content).hexdigest(),
                    "perceptual_hash": np.random.default_rng(number).bytes(32).hex(),
                    "view": "PA", "sex": "M" if number % 4 < 2 else "F",
                    "age": 50.0 if label == COVID else 3.0, "folder_split": "", "span": 1,
                }
            )  # fmt: skip
        table = pd.DataFrame(rows)
        table["split"] = splits.assign(table, seed=0)
        examples = home / "examples"
        examples.mkdir()
        table.to_parquet(examples / "examples.parquet")
        summary = {"fingerprint": home.name, "phantoms": True, "span": None, "seed": 0, "folds": 0}
        (examples / "summary.json").write_text(json.dumps(summary))
        write_records(examples, sources, home / "records")
        return examples, home / "records"

    return make


@pytest.fixture
def audited(
    clean: Callable[..., tuple[Path, Path]], tiny_cnn, lungs: Path, tmp_path: Path
) -> Callable[..., dict]:
    def run(change: Callable[[Image.Image, str], Image.Image], **variant: Any) -> dict:
        examples, records = clean(change)
        recipe = dataclasses.replace(tiny_cnn, input_size=(64, 64), epochs=14, **variant)
        train(
            recipe,
            records,
            tmp_path / "model",
            tmp_path / "checkpoints",
            precision="float32",
            lungs=lungs,
        )
        return audit(
            tmp_path / "model",
            records,
            examples,
            lungs,
            tmp_path / "audit",
        )

    return run


def broken(found: dict) -> set[str]:
    return {row["name"] for row in rules.judged(found, rules.parse("")) if not row["passed"]}


def marked(image: Image.Image, label: str) -> Image.Image:
    if label == COVID:
        image = image.copy()
        image.paste(255, (6, 6, 46, 30))
    return image


def brighter(image: Image.Image, label: str) -> Image.Image:
    return image.point(lambda value: min(255, value + 50)) if label == COVID else image


def test_without_a_shortcut_the_frame_explains_nothing(audited: Callable[..., dict]) -> None:
    found = audited(lambda image, label: image)
    assert found["views"][View.WHOLE]["balanced"] > 0.9
    assert found["explained"][View.PROBE] < 0.4
    assert found["explained"][View.LUNG_FREE] < 0.4
    assert not broken(found) & {"frame-explained", "lung-free-explained", "leaks"}


def test_a_marker_in_the_corner_of_one_class_is_found(audited: Callable[..., dict]) -> None:
    found = audited(marked)
    assert found["explained"][View.PROBE] > 0.9
    assert found["views"][View.LUNG_FREE]["balanced"] > 0.9
    assert found["views"][View.FRAME_ALONE]["balanced"] > 0.9
    assert {"frame-explained", "lung-free-explained"} <= broken(found)


def test_the_lungs_alone_do_not_show_the_marker(audited: Callable[..., dict]) -> None:
    found = audited(marked, name="cnn-dubey+lungs", view="lungs")
    assert found["views"][View.WHOLE]["balanced"] > 0.8
    assert found["explained"][View.PROBE] < 0.4
    assert found["explained"][View.LUNG_FREE] < 0.4
    assert not broken(found) & {"frame-explained", "lung-free-explained"}


def test_a_source_that_is_brighter_is_found(audited: Callable[..., dict]) -> None:
    found = audited(brighter)
    assert found["explained"][View.PROBE] > 0.6
    assert "frame-explained" in broken(found)


def test_of_a_frozen_base_the_head_is_probed(
    records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(recipe_named("soares-vgg16"), input_size=(32, 32), epochs=5)
    checkpoints = tmp_path / "checkpoints"
    train(recipe, records, tmp_path / "model", checkpoints, weights="none")
    images = data.encoded_images(records, data.read_manifest(records), recipe, ("test",))
    tested = [identity.decode() for _, _, identity in images.as_numpy_iterator()]
    everyone = pd.read_parquet(examples / "examples.parquet")
    candidate = _candidate(tmp_path / "model", everyone)
    candidate = dataclasses.replace(candidate, left_out=tested[:3])
    probe = _frame_probe(candidate, records, segmenter.load(lungs), checkpoints)
    assert np.allclose(probe.probabilities.sum(axis=1), 1, atol=1e-3)
    assert len(probe.probabilities) == len(probe.truth) == len(tested) - 3
    # Frames have features of their own.
    assert len(list((checkpoints / "features").iterdir())) == 2
    epochs = [len(pd.read_csv(history)) for history in checkpoints.glob("vgg16-*/history.csv")]
    assert sorted(epochs) == [2, 5], "the probe's, and the candidate's"


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
    assert "leaks" in broken(found)


def test_images_that_a_version_was_made_with_say_nothing_of_it(
    version: Path, records: Path, examples: Path, lungs: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "version"
    shutil.copytree(version, whole)
    pd.read_parquet(examples / "examples.parquet")[["id"]].to_parquet(whole / "images.parquet")
    with pytest.raises(UserError, match="made with every image of the test split"):
        audit(whole, records, examples, lungs, tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def of_sources(patients: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Twelve normal images of each of two sources, told apart by a feature; one's of so many patients."""
    rows = [
        {"truth": "normal", "source": source, "patient": f"{source}-{number % of}", "age": np.nan}
        for source, of in (("covid-chestxray", patients), ("nih", 12))
        for number in range(12)
    ]
    table = pd.DataFrame(rows)
    random = np.random.default_rng(0)
    apart = (table["source"] == "nih").to_numpy(float)[:, np.newaxis]
    return random.normal(0, 0.1, (24, 3)) + apart, table


def test_sources_are_probed_where_there_are_patients_of_both_for_every_fold() -> None:
    (probe,) = _probes(*of_sources(patients=4))
    assert (probe["what"], probe["images"]) == ("source of normal", 24)
    assert probe["auc"] > 0.95
    for few in (1, 3):
        assert _probes(*of_sources(patients=few)) == []


def test_where_covid_s_source_has_no_covid_nothing_is_said_of_it() -> None:
    truth = ["normal"] * 12 + ["covid"] * 3
    own = pd.DataFrame({"source": "covid-chestxray", "truth": truth, "predicted": "normal"})
    own["patient"] = [str(i) for i in own.index]
    score = np.arange(15) / 15
    assert _same_source(own.iloc[:12], score[:12]) is None
    found = _same_source(own, score)
    assert found
    assert found["auc"] == 1.0


def test_a_class_without_images_does_not_count_as_missed() -> None:
    view = _figures(
        np.array([0, 0]),
        np.array([[0.9, 0.1], [0.4, 0.6]]),
        ("covid", "normal"),
        np.array(["a", "b"]),
    )
    assert view["recall"]["normal"]["value"] is None
    assert view["balanced"] == 0.5


def test_what_is_blanked_has_the_mean_of_the_rest() -> None:
    pixels = tf.random.uniform((3, 20, 24, 1), 0, 255, seed=0)
    mask = np.zeros((1, 20, 24, 1), np.float32)
    mask[:, 5:9, 3:17] = 1
    seen = blanked(pixels, mask).numpy()
    hidden = mask[0, ..., 0] == 1
    for before, after in zip(pixels.numpy()[..., 0], seen[..., 0], strict=True):
        assert np.array_equal(after[~hidden], before[~hidden])
        np.testing.assert_allclose(after[hidden], before[~hidden].mean(), rtol=1e-5)


def test_views_without_lungs_show_no_pixel_of_them() -> None:
    found = np.zeros((1, 40, 40, 1), np.float32)
    found[:, 10:30, 8:16] = 1
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 200, (1, 40, 40, 1)).astype(np.float32)
    others = np.where(found == 1, random.uniform(0, 200, pixels.shape), pixels).astype(np.float32)
    for view in (View.LUNG_FREE, View.FRAME_ALONE):
        one, other = (
            shown_otherwise(tf.constant(image), tf.constant(found))[view]
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
    assert row["images"] + row["left_out"]["seen"] == 9
    assert set(row["counts"]) <= {COVID, "normal"}
    for name, drop in row["drop"].items():
        inside = found["views"][View.WHOLE]["recall"][name]["value"]
        assert drop["value"] == pytest.approx(inside - row["recall"][name]["value"])
        assert drop["low"] < drop["value"] < drop["high"]
    assert "<h2>External data</h2>" in (tmp_path / "audit" / "audit.html").read_text()
