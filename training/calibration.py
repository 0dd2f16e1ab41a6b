"""Calibrates probabilities and measures their calibration.

Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

_BINS = 10
_SMALLEST = 1e-7


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities of a softmax at another temperature.

    Args:
      probabilities: float [N, classes], rows that sum to one.
      temperature: over 0; above 1 the probabilities become more equal.
    """
    return np.asarray(softmax(np.log(np.maximum(probabilities, _SMALLEST)) / temperature, axis=1))


def fitted_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Returns the temperature in 0.2..10 with the highest likelihood of the truth.

    Args:
      probabilities: float [N, classes], of images that were not trained on.
      truth: int [N], class positions. Every class has the same weight, as in training.
    """
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    weights = 1 / counts[truth]

    def surprise(log_temperature: float) -> float:
        shares = scaled(probabilities, float(np.exp(log_temperature)))
        likely = np.maximum(shares[np.arange(len(truth)), truth], _SMALLEST)
        return float(-(weights * np.log(likely)).sum())

    minimum = minimize_scalar(surprise, bounds=(np.log(0.2), np.log(10.0)), method="bounded")
    return float(np.exp(minimum.x))


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns how often predictions of a given confidence are right.

    Args:
      probabilities: float [N, classes].
      truth: int [N].

    Returns:
      `bins`: for each of ten equal ranges of the highest probability that has images, a row of
      `confidence` (the mean), `accuracy` and `images`; and `error`, the expected calibration error: the mean
      distance between confidence and accuracy over the images, in 0..1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    of_each = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [
        {
            "confidence": float(confidence[of_each == number].mean()),
            "accuracy": float(right[of_each == number].mean()),
            "images": int((of_each == number).sum()),
        }
        for number in np.unique(of_each)
    ]
    gaps = [row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins]
    return {"bins": bins, "error": float(sum(gaps) / len(truth))}
