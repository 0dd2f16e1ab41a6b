import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score

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


def test_roc_curves_are_finite_for_kfp(evaluation: Path) -> None:
    predictions = pd.read_parquet(evaluation / "predictions.parquet")
    for x, y, thresholds in roc_curves(predictions, ("normal", "covid")).values():
        assert np.isfinite([x, y, thresholds]).all()
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
