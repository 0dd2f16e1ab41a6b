"""Radiographs from elsewhere, asked of a model that answers by brightness and abstains from the darkest."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from components.data.facts import inspect
from components.data.sources import listed
from components.trust.external import measure
from training.preprocess import to_input
from training.recipes import recipe_named

BRIGHT, DARK, BLACK = 190, 110, 40
NOTHING_SEEN = pd.DataFrame(columns=["id", "patient", "sha256", "perceptual_hash"])
Asked = Callable[..., dict[str, Any]]


def picture(seed: int, level: int, side: int = 256) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-30, 31, (12, 12)) + level
    return Image.fromarray(noise.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def answering() -> SimpleNamespace:
    """Bright images are covid, all others normal, and of the darkest it does not say."""

    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        level = tf.reduce_mean(pixels, (1, 2, 3)) / 255
        return {
            "probabilities": tf.stack([1 - level, level], axis=1),
            "ood_score": tf.where(level < 0.3, 2.0, 0.5),
        }

    return SimpleNamespace(
        preprocess=lambda image_bytes: {"pixels": to_input(image_bytes, (32, 32))},
        classify=classify,
    )


@pytest.fixture
def asked(answering: SimpleNamespace, tmp_path: Path) -> Asked:
    """Writes a CSV of rows (finding, patient, place, level or content) and asks about it."""

    def run(*rows: tuple[str, str, str, int | bytes], seen: pd.DataFrame = NOTHING_SEEN) -> dict:
        place = tmp_path / "clinic"
        place.mkdir()
        lines = ["path,label,patient,place"]
        for number, (finding, patient, where, what) in enumerate(rows):
            file = place / f"{number}.png"
            if isinstance(what, bytes):
                file.write_bytes(what)
            else:
                picture(number, what).save(file)
            lines.append(f'{file.name},"{finding}",{patient},{where}')
        (place / "images.csv").write_text("\n".join(lines))
        (source,) = listed.parse([f"clinic={place / 'images.csv'}"]).values()
        inside = {name: {"value": 0.9, "low": 0.8, "high": 0.95} for name in ("normal", "covid")}
        return measure(answering, source, recipe_named("cnn-dubey"), seen, inside)

    return run


def identity(image: Image.Image, patient: str = "kermany/7") -> pd.DataFrame:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    facts = inspect(buffer.getvalue())
    row = {"id": "kermany/a.png", "patient": patient, "sha256": facts.sha256}
    return pd.DataFrame([{**row, "perceptual_hash": facts.perceptual_hash}])


def test_a_planted_duplicate_is_found_under_another_name_size_and_format(asked: Asked) -> None:
    trained = picture(1000, DARK, 300)
    buffer = io.BytesIO()
    copy = ImageEnhance.Brightness(trained).enhance(1.1).resize((220, 240))
    copy.save(buffer, "JPEG", quality=70)
    found = asked(
        ("No finding", "p1", "", buffer.getvalue()),
        ("No finding", "p2", "", DARK),
        # Related to the copy: the same patient.
        ("No finding", "p1", "", DARK),
        seen=identity(trained),
    )
    assert found["left_out"] == {"seen": 2, "unlabelled": 0, "unreadable": 0, "of other views": 0}
    assert (found["images"], found["patients"], found["counts"]) == (1, 1, {"normal": 1})


def test_images_of_other_views_are_left_out(answering: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(4):
        picture(number, BRIGHT).save(tmp_path / f"{number}.png")
    rows = ("0.png,covid,PA", "1.png,covid,L", "2.png,covid,", "3.png,covid,ap supine")
    (tmp_path / "images.csv").write_text("\n".join(["path,label,view", *rows]))
    (source,) = listed.parse([f"clinic={tmp_path / 'images.csv'}"]).values()
    inside = {name: {"value": 0.9, "low": 0.8, "high": 0.95} for name in ("normal", "covid")}
    for views, asked, others in ((["PA", "AP Supine"], 3, 1), ([], 4, 0)):
        found = measure(answering, source, recipe_named("cnn-dubey"), NOTHING_SEEN, inside, views)
        assert found["images"] == asked
        assert found["left_out"]["of other views"] == others


def test_images_of_a_patient_who_was_trained_on_are_left_out(asked: Asked) -> None:
    seen = identity(picture(1000, DARK), patient="clinic/P 7")
    found = asked(("covid", "p 7", "", BRIGHT), ("covid", "p8", "", BRIGHT), seen=seen)
    assert found["left_out"]["seen"] == 1
    assert found["counts"] == {"covid": 1}


def test_copies_under_other_patients_names_are_one_patients(asked: Asked) -> None:
    buffer = io.BytesIO()
    picture(5, DARK).save(buffer, "PNG")
    found = asked(
        *(("No finding", f"p{number}", "", buffer.getvalue()) for number in range(20)),
        ("No finding", "other", "", BRIGHT),
    )
    assert (found["images"], found["patients"], found["counts"]) == (21, 21, {"normal": 21})
    assert found["judged_patients"] == {"others": 2, "normal": 2}
    assert found["recall"]["normal"]["low"] < 0.3


def test_abstentions_are_neither_right_nor_wrong(asked: Asked) -> None:
    found = asked(
        ("covid", "a", "", BRIGHT), ("covid", "b", "", DARK), ("covid", "c", "", BLACK),
        ("No finding", "d", "", BRIGHT), ("No finding", "e", "", BLACK), ("No finding", "f", "", BLACK),
    )  # fmt: skip
    assert found["images"] == 6
    assert found["abstained"]["value"] == 3 / 6
    assert found["counts"] == {"covid": 2, "normal": 1}
    assert found["judged_patients"] == {"others": 1, "covid": 2, "normal": 1}
    assert found["answered"] == 3
    assert found["recall"]["covid"]["value"] == 1 / 2
    assert found["drop"]["covid"]["value"] == pytest.approx(0.9 - 0.5)
    assert found["called_covid"]["value"] == 1
    assert found["called_covid"]["low"] < found["called_covid"]["high"] == 1


def test_findings_that_are_not_known_are_left_out_and_others_are_not_covid(asked: Asked) -> None:
    found = asked(
        ("todo", "a", "", BRIGHT), ("Unknown", "b", "", BRIGHT), ("", "c", "", BRIGHT),
        ("Pneumonia/Lipoid", "d", "", BRIGHT), ("Pneumonia", "e", "", DARK),
    )  # fmt: skip
    assert found["left_out"] == {"seen": 0, "unlabelled": 3, "unreadable": 0, "of other views": 0}
    assert found["counts"] == {}
    assert found["called_covid"]["value"] == 1 / 2


def test_bad_files_are_left_out_with_their_reason(asked: Asked, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture(5, DARK).save(buffer, "PNG")
    found = asked(
        ("covid", "a", "", buffer.getvalue()[:200]), ("covid", "b", "", b""),
        ("covid", "c", "", b"GIF89a"), ("covid", "d", "", BRIGHT),
    )  # fmt: skip
    assert found["left_out"] == {"seen": 0, "unlabelled": 0, "unreadable": 3, "of other views": 0}
    assert [row["path"] for row in found["unreadable"]] == ["0.png", "1.png", "2.png"]
    assert "no content" in found["unreadable"][1]["reason"]
    assert found["recall"]["covid"]["value"] == 1


def test_a_source_that_is_gone_since_the_run_began_costs_no_audit(
    answering: SimpleNamespace, tmp_path: Path
) -> None:
    (source,) = listed.parse([f"clinic={tmp_path / 'images.csv'}"]).values()
    inside = {name: {"value": 0.9, "low": 0.8, "high": 0.95} for name in ("normal", "covid")}
    place = measure(answering, source, recipe_named("cnn-dubey"), NOTHING_SEEN, inside)
    assert (place["images"], place["others"], place["counts"]) == (0, 0, {})
    assert place["left_out"]["unreadable"] == 1
    assert "images.csv" in place["unreadable"][0]["reason"]


def test_where_every_image_is_left_out_there_are_no_figures(asked: Asked) -> None:
    found = asked(("covid", "a", "", b""), ("covid", "b", "", b"x"))
    assert found["images"] == 0
    assert found["called_covid"]["value"] is None
    assert found["recall"] == found["drop"] == {}
    assert found["areas"] == []


def test_areas_are_of_one_place_that_has_both_sides(asked: Asked) -> None:
    found = asked(
        ("covid", "a", "Berlin", BRIGHT), ("covid", "b", "Berlin", DARK),
        ("No finding", "c", "Berlin", DARK - 20), ("No finding", "d", "Berlin", BRIGHT + 20),
        ("covid", "e", "Rome", BRIGHT), ("No finding", "f", "Oslo", DARK), ("No finding", "g", "", DARK),
    )  # fmt: skip
    (area,) = found["areas"]
    assert (area["place"], area["covid"], area["others"]) == ("Berlin", 2, 2)
    assert area["auc"]["value"] == 0.5
    assert area["auc"]["low"] < 0.5 < area["auc"]["high"]


def test_a_source_that_names_no_place_is_one(asked: Asked) -> None:
    found = asked(("covid", "a", "", BRIGHT), ("No finding", "b", "", DARK))
    (area,) = found["areas"]
    assert (area["place"], area["auc"]["value"]) == ("clinic", 1)
