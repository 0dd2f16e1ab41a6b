"""Whether an image is like those that a network was trained on, by the features it makes of it.

Lee, Lee, Lee, Shin: "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
Attacks", arXiv:1807.03888: Mahalanobis distance to the nearest class, under one covariance for all.
"""

from dataclasses import dataclass

import numpy as np

from core.errors import UserError

# Of validation images so many are to be answered; what is farther away than the others is not.
COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known, in a space where distances are Mahalanobis's.

    Attributes:
      whitening: float32 [features, features].
      means: float32 [classes, features], of each class, whitened.
      threshold: the distance that a share of `COVERAGE` of the images does not exceed.
    """

    whitening: np.ndarray
    means: np.ndarray
    threshold: float


def fitted(features: np.ndarray, truth: np.ndarray, judged: np.ndarray) -> Known:
    """Fits means and covariance to training images, and the threshold to others.

    Args:
      features: float [N, features], of training images.
      truth: int [N], their classes' positions, each of which occurs.
      judged: float [M, features], of images that were not trained on.

    Raises:
      UserError: features are not finite, so that no distance is.
    """
    from sklearn.covariance import LedoitWolf  # which the server, that knows `Known`, has not

    if not (np.isfinite(features).all() and np.isfinite(judged).all()):
        raise UserError(
            "train: the network's features are not finite, so that it could not tell unknown images: "
            "training has diverged. Train again with --precision float32, or with another --seed."
        )
    means = np.stack([features[truth == one].mean(axis=0) for one in range(truth.max() + 1)])
    # Shrunk, because there are hardly more images than features (Ledoit, Wolf 2004).
    covariance = LedoitWolf(assume_centered=True).fit(features - means[truth]).covariance_
    # Features that never vary, of units that died, must not count infinitely.
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-3 * values.mean() + 1e-12))
    known = Known(
        whitening=whitening.astype(np.float32),
        means=(means @ whitening).astype(np.float32),
        threshold=1.0,
    )
    threshold = float(np.quantile(scores(known, judged), COVERAGE))
    assert np.isfinite(threshold), "a class without an image has no mean"
    return Known(whitening=known.whitening, means=known.means, threshold=max(threshold, 1e-6))


def scores(known: Known, features: np.ndarray) -> np.ndarray:
    """Returns float [N]: the distance to the nearest class, as a multiple of the threshold."""
    apart = (features @ known.whitening)[:, np.newaxis] - known.means[np.newaxis]
    return np.asarray(np.sqrt((apart**2).sum(axis=-1)).min(axis=1) / known.threshold)


def risk_coverage(score: np.ndarray, wrong: np.ndarray) -> dict[str, list[float]]:
    """Returns how many answers are wrong when only the images with the lowest scores are answered.

    El-Yaniv, Wiener: "On the Foundations of Noise-free Selective Classification", JMLR 2010.

    Args:
      score: float [N].
      wrong: bool [N], whether the answer is.

    Returns:
      `coverage` and `risk`, each the share of images, rising in coverage to 1.
    """
    order = np.argsort(score, kind="stable")
    answered = np.arange(1, len(order) + 1)
    return {
        "coverage": (answered / len(order)).tolist(),
        "risk": (np.cumsum(wrong[order]) / answered).tolist(),
    }
