"""Whether probabilities mean what they say, and how they are made to.

Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

_BINS = 10
_SMALLEST = 1e-7


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities as a softmax at another temperature gives them.

    Args:
      probabilities: float [N, classes], rows that sum to one.
      temperature: over 0; above 1 they come nearer to each other.
    """
    logits = np.log(np.maximum(probabilities, _SMALLEST)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def fitted_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Returns the temperature, in 0.2..10, at which the truth is likeliest.

    Args:
      probabilities: float [N, classes], of images that were not trained on.
      truth: int [N], positions of the classes. Every class weighs alike, as in training.
    """
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    weights = 1 / counts[truth]

    def surprise(log_temperature: float) -> float:
        shares = scaled(probabilities, float(np.exp(log_temperature)))
        likely = np.maximum(shares[np.arange(len(truth)), truth], _SMALLEST)
        return float(-(weights * np.log(likely)).sum())

    found = minimize_scalar(surprise, bounds=(np.log(0.2), np.log(10.0)), method="bounded")
    return float(np.exp(found.x))


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns how often predictions of some confidence are right.

    Args:
      probabilities: float [N, classes].
      truth: int [N].

    Returns:
      `bins`, rows of `confidence` (the mean), `accuracy` and `images`, of ten equal ranges of the
      highest probability those that have images; and `error`, the expected calibration error: the mean
      over images of the distance between the two, in 0..1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    of_each = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [
        {
            "confidence": float(confidence[of_each == one].mean()),
            "accuracy": float(right[of_each == one].mean()),
            "images": int((of_each == one).sum()),
        }
        for one in np.unique(of_each)
    ]
    gaps = [one["images"] * abs(one["confidence"] - one["accuracy"]) for one in bins]
    return {"bins": bins, "error": float(sum(gaps) / len(truth))}
