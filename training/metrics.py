"""Metrics of predictions, with intervals that know patients; see `training.intervals`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, roc_curve

from core.labels import COVID
from training import intervals


def evaluate(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[str] | np.ndarray,
) -> dict[str, Any]:
    """Returns the metrics by which models are judged and compared.

    Args:
      truth: int [N], positions in `classes`.
      probabilities: float [N, classes]; the predicted class is the most probable.
      classes: their names.
      patients: identifies the patient of each image, [N].

    Returns:
      `images`; `classes`; `confusion` (rows true, columns predicted); `accuracy` and `macro_f1`; and
      `per_class`: for each name its `images`, `precision`, `recall`, `specificity`, `f1` and
      `roc_auc` (one against the rest). Each is `{"value", "low", "high"}` with a 95 % interval (see
      `intervals.share` and `intervals.roc_auc`), all None if there is nothing to measure. F1 is not a
      proportion, but it grows with TP / (TP + FP + FN), which is one, so its interval is derived from the
      interval of that proportion (Hand et al. 2021, doi:10.1007/s10994-021-05964-1).
    """
    predicted, patients = probabilities.argmax(axis=1), np.asarray(patients, str)

    def share(hits: np.ndarray, among: np.ndarray) -> intervals.Rate:
        return intervals.share(hits[among], patients[among])

    matrix = confusion_matrix(truth, predicted, labels=range(len(classes)))
    per_class: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(classes):
        is_class, called = truth == i, predicted == i
        hits = is_class & called
        per_class[name] = {
            "images": int(is_class.sum()),
            "precision": share(hits, called),
            "recall": share(hits, is_class),
            "specificity": share(~called, ~is_class),
            "f1": _f1(share(hits, is_class | called)),
            "roc_auc": intervals.roc_auc(is_class, probabilities[:, i], patients),
        }
    f1 = [values["f1"]["value"] or 0.0 for values in per_class.values()]
    return {
        "images": len(truth),
        "classes": list(classes),
        "confusion": matrix.tolist(),
        "accuracy": intervals.share(truth == predicted, patients),
        "macro_f1": float(np.mean(f1)),
        "per_class": per_class,
    }


def roc_curves(
    predictions: pd.DataFrame, classes: tuple[str, ...]
) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Returns the ROC curve of each class against the rest: false- and true-positive rates, thresholds."""
    curves = {}
    for name in classes:
        x, y, thresholds = roc_curve(predictions["truth"] == name, predictions[name])
        thresholds[0] = 1.0  # scikit-learn starts at infinity, which JSON cannot represent
        curves[name] = (x.tolist(), y.tolist(), thresholds.tolist())
    return curves


def duel(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Compares two models on the images that both predicted.

    Models with different classes are compared by how they tell COVID from the rest.

    Args:
      ours, theirs: with `id`, `truth` and `predicted`, see `training.saved_model.predictions`, and ours with
        `patient`.

    Returns:
      `images`; `patients`; `covid_recall` and `accuracy`, each (ours, theirs), None if there are no images;
      `only_ours` and `only_theirs`, the number of images that only one model gets right; and `p`, see
      `intervals.chance_of_difference`.
    """
    both = ours[["id", "patient", "truth", "predicted"]].merge(
        theirs[["id", "truth", "predicted"]], on="id", suffixes=("_ours", "_theirs")
    )
    if set(ours["truth"]) != set(theirs["truth"]):
        for column in both.columns.drop(["id", "patient"]):
            both[column] = both[column].where(both[column] == COVID, "other")
    right = {
        side: both[f"predicted_{side}"] == both[f"truth_{side}"] for side in ("ours", "theirs")
    }
    is_covid = both["truth_ours"] == COVID
    only_ours = right["ours"] & ~right["theirs"]
    only_theirs = right["theirs"] & ~right["ours"]
    patients = both["patient"].to_numpy(str)
    return {
        "images": len(both),
        "patients": len(np.unique(patients)),
        "covid_recall": [_share(right[side][is_covid]) for side in right],
        "accuracy": [_share(right[side]) for side in right],
        "only_ours": int(only_ours.sum()),
        "only_theirs": int(only_theirs.sum()),
        "p": intervals.chance_of_difference(only_ours, only_theirs, patients),
    }


def _share(hits: pd.Series) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _f1(jaccard: intervals.Rate) -> intervals.Rate:
    return {
        name: None if value is None else 2 * value / (1 + value) for name, value in jaccard.items()
    }
