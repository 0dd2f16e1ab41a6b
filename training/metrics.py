"""Metrics of predictions: counts, rates and their uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from core.labels import COVID


def evaluate(
    truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Returns the metrics by which models are judged and compared.

    Args:
      truth: int [N], positions in `classes`.
      probabilities: float [N, classes]; the predicted class is the most probable.
      classes: their names.

    Returns:
      `images`; `classes`; `confusion` (rows true, columns predicted); `accuracy` and `macro_f1`; and
      `per_class`: for each name its `images`, `precision`, `recall`, `specificity`, `f1` and
      `roc_auc` (one against the rest). Rates are `{"value", "low", "high"}` with Wilson's 95 %
      interval (Wilson 1927), all None if the total is zero. F1 is not a proportion, but it grows with
      TP / (TP + FP + FN), which is one, so its interval is derived from the interval of that proportion
      (Hand et al. 2021, doi:10.1007/s10994-021-05964-1).
    """
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(truth, predicted, labels=range(len(classes)))
    per_class: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(classes):
        hit = int(matrix[i, i])
        missed, false_alarms = int(matrix[i].sum()) - hit, int(matrix[:, i].sum()) - hit
        rejected = int(matrix.sum()) - hit - missed - false_alarms
        per_class[name] = {
            "images": hit + missed,
            "precision": rate(hit, hit + false_alarms),
            "recall": rate(hit, hit + missed),
            "specificity": rate(rejected, rejected + false_alarms),
            "f1": _f1(hit, hit + missed + false_alarms),
            "roc_auc": _roc_auc(truth == i, probabilities[:, i]),
        }
    f1 = [values["f1"]["value"] or 0.0 for values in per_class.values()]
    return {
        "images": len(truth),
        "classes": list(classes),
        "confusion": matrix.tolist(),
        "accuracy": rate(int(np.trace(matrix)), len(truth)),
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
    """Compares two models on the images that both predicted (McNemar 1947, the exact test).

    Models with different classes are compared by how they tell COVID from the rest.

    Args:
      ours, theirs: with `id`, `truth` and `predicted`; see `training.export.predictions`.

    Returns:
      `images`; `covid_recall` and `accuracy`, each (ours, theirs), None if there are no images;
      `only_ours` and `only_theirs`, the number of images that only one model gets right; and `p`, the
      probability of a difference this large if both models were equally good.
    """
    both = ours[["id", "truth", "predicted"]].merge(
        theirs[["id", "truth", "predicted"]], on="id", suffixes=("_ours", "_theirs")
    )
    if set(ours["truth"]) != set(theirs["truth"]):
        for column in both.columns.drop("id"):
            both[column] = both[column].where(both[column] == COVID, "other")
    right = {
        side: both[f"predicted_{side}"] == both[f"truth_{side}"] for side in ("ours", "theirs")
    }
    is_covid = both["truth_ours"] == COVID
    only_ours = int((right["ours"] & ~right["theirs"]).sum())
    only_theirs = int((right["theirs"] & ~right["ours"]).sum())
    uneven = only_ours + only_theirs
    return {
        "images": len(both),
        "covid_recall": [_share(right[side][is_covid]) for side in right],
        "accuracy": [_share(right[side]) for side in right],
        "only_ours": only_ours,
        "only_theirs": only_theirs,
        "p": float(binomtest(only_ours, uneven, 0.5).pvalue) if uneven else 1.0,
    }


def _share(hits: pd.Series) -> float | None:
    return float(hits.mean()) if len(hits) else None


def rate(hits: int, total: int) -> dict[str, float | None]:
    """Returns hits / total with Wilson's 95 % interval; see `evaluate`."""
    if not total:
        return {"value": None, "low": None, "high": None}
    interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return {"value": hits / total, "low": float(interval.low), "high": float(interval.high)}


def drop(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns the drop from one rate to another, with its 95 % interval.

    Newcombe: "Interval estimation for the difference between independent proportions" (1998), method 10.

    Args:
      before, after: see `rate`; of different images.

    Returns:
      `value`, `low` and `high`, in -1..1, all None if one of the rates is.
    """
    if before["value"] is None or after["value"] is None:
        return {"value": None, "low": None, "high": None}
    p, low, high = (float(before[key] or 0) for key in ("value", "low", "high"))
    q, their_low, their_high = (float(after[key] or 0) for key in ("value", "low", "high"))
    return {
        "value": p - q,
        "low": p - q - float(np.hypot(p - low, their_high - q)),
        "high": p - q + float(np.hypot(high - p, q - their_low)),
    }


def _f1(hits: int, named: int) -> dict[str, float | None]:
    jaccard = rate(hits, named)
    return {
        name: None if value is None else 2 * value / (1 + value) for name, value in jaccard.items()
    }


def _roc_auc(is_class: np.ndarray, score: np.ndarray) -> float | None:
    if is_class.all() or not is_class.any():
        return None
    return float(roc_auc_score(is_class, score))
