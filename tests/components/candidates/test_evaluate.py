import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

from components.candidates.evaluate import evaluate
from core.errors import UserError
from core.files import read_json, write_json
from training import data, intervals, saved_model
from training.metrics import roc_curves


def test_every_test_image_is_predicted_once(evaluation: Path, records: Path) -> None:
    predictions = pd.read_parquet(evaluation / "predictions.parquet")
    labels = json.loads((records / "manifest.json").read_text())["splits"]["test"]["labels"]
    assert predictions["id"].is_unique
    assert len(predictions) == labels["covid"] + labels["normal"]
    assert np.allclose(predictions[["normal", "covid"]].sum(axis=1), 1)
    assert (predictions["predicted"] == predictions[["normal", "covid"]].idxmax(axis=1)).all()


def test_the_figures_are_those_of_the_predictions(evaluation: Path) -> None:
    predictions = pd.read_parquet(evaluation / "predictions.parquet")
    figures = json.loads((evaluation / "metrics.json").read_text())
    for name in ("normal", "covid"):
        expected = recall_score(
            predictions["truth"], predictions["predicted"], labels=[name], average="macro"
        )
        assert np.isclose(figures["per_class"][name]["recall"]["value"], expected)
    assert figures["recipe"] == "cnn-dubey"
    assert figures["transfer_learning"] is False


def test_the_images_of_one_patient_count_as_one(
    model: Path, records: Path, evaluation: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(records, tmp_path / "records"))
    table = pd.read_parquet(copy / "identities.parquet").assign(patient="one")
    table.to_parquet(copy / "identities.parquet")
    figures = evaluate(model, copy, tmp_path / "evaluation")
    before = read_json(evaluation / "metrics.json")["accuracy"]
    assert figures["accuracy"]["value"] == before["value"]
    assert figures["accuracy"]["low"] <= intervals.rate(before["value"], 1)["low"] < before["low"]


def test_roc_curves_are_finite_for_kfp(evaluation: Path) -> None:
    predictions = pd.read_parquet(evaluation / "predictions.parquet")
    for x, y, thresholds in roc_curves(predictions, ("normal", "covid")).values():
        assert np.isfinite([x, y, thresholds]).all()
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_the_figures_of_validation_are_those_of_the_exported_model_there(
    evaluation: Path, model: Path, records: Path, tiny_cnn
) -> None:
    images = data.encoded_images(records, data.read_manifest(records), tiny_cnn, ["validation"])
    asked = saved_model.predictions(
        saved_model.load(model / "saved_model"), images, tiny_cnn.classes
    )
    answers = asked["truth"], asked["predicted"]
    figures = read_json(evaluation / "metrics.json")["validation"]
    assert figures["images"] == len(asked) > 0
    assert np.isclose(figures["macro_f1"], f1_score(*answers, average="macro", zero_division=0))
    recall = figures["covid_recall"]
    assert np.isclose(recall["value"], recall_score(*answers, labels=["covid"], average="macro"))
    assert recall["low"] < recall["high"]


def test_the_shares_of_the_answers_are_what_a_server_would_count(
    model: Path, records: Path, tiny_cnn, evaluation: Path
) -> None:
    images = data.encoded_images(records, data.read_manifest(records), tiny_cnn, ["test"])
    classify = saved_model.load(model / "saved_model").predict
    counted = {"normal": 0, "covid": 0, "unknown": 0}
    for content, _, _ in images.batch(8):
        answer = classify(image_bytes=content)
        for row, score in zip(answer["probabilities"].numpy(), answer["ood_score"], strict=True):
            counted["unknown" if score > 1 else tiny_cnn.classes[row.argmax()]] += 1
    shares = read_json(evaluation / "metrics.json")["answers"]
    total = sum(counted.values())
    assert {**shares["classes"], "unknown": shares["abstained"]} == {
        name: count / total for name, count in counted.items()
    }


def test_a_division_without_a_validation_part_has_no_figures_of_it(
    model: Path, records: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    write_json(copy / "model.json", {**read_json(copy / "model.json"), "division": "80/20"})
    assert evaluate(copy, records, tmp_path / "evaluation")["validation"] is None


def test_a_part_that_lacks_a_class_is_refused(model: Path, records: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(records, tmp_path / "records"))
    manifest = read_json(copy / "manifest.json")
    manifest["splits"]["test"]["labels"]["covid"] = 0
    write_json(copy / "manifest.json", manifest)
    with pytest.raises(UserError, match="test has no image of class covid"):
        evaluate(model, copy, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()
