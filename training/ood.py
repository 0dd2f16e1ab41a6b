"""Tells whether an image is like the training images, by the network's features.

Lee, Lee, Lee, Shin: "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
Attacks", arXiv:1807.03888: Mahalanobis distance to the nearest class, under one covariance for all.
"""

from dataclasses import dataclass

import numpy as np

from core.errors import UserError

# The share of validation images to be answered; the model abstains from those farther away.
COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Known:
    """The training images' distribution, in a space where distances are Mahalanobis distances.

    Attributes:
      whitening: float32 [features, features].
      means: float32 [classes, features], the whitened mean of each class.
      threshold: the distance within which a share of `COVERAGE` of the images lies.
    """

    whitening: np.ndarray
    means: np.ndarray
    threshold: float


def fitted(features: np.ndarray, truth: np.ndarray, judged: np.ndarray) -> Known:
    """Fits means and covariance to training images, and the threshold to validation images.

    Args:
      features: float [N, features], of training images.
      truth: int [N], their class positions; each class must occur.
      judged: float [M, features], of validation images.

    Raises:
      UserError: features are not finite.
    """
    from sklearn.covariance import LedoitWolf  # the server does not have this package

    if not (np.isfinite(features).all() and np.isfinite(judged).all()):
        raise UserError(
            "train: the network's features are not finite, so it could not recognise unknown images: "
            "training has diverged. Train again with --precision float32, or with another --seed."
        )
    means = np.stack([features[truth == label].mean(axis=0) for label in range(truth.max() + 1)])
    # Shrinkage, because there are hardly more images than features (Ledoit, Wolf 2004).
    covariance = LedoitWolf(assume_centered=True).fit(features - means[truth]).covariance_
    # Constant features, of dead units, must not get infinite weight.
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
    """Returns the distance to the nearest class divided by the threshold: float [N]."""
    apart = (features @ known.whitening)[:, np.newaxis] - known.means[np.newaxis]
    return np.asarray(np.sqrt((apart**2).sum(axis=-1)).min(axis=1) / known.threshold)


def risk_coverage(score: np.ndarray, wrong: np.ndarray) -> dict[str, list[float]]:
    """Returns the error rate when only the images with the lowest scores are answered.

    El-Yaniv, Wiener: "On the Foundations of Noise-free Selective Classification", JMLR 2010.

    Args:
      score: float [N].
      wrong: bool [N], whether the answer is wrong.

    Returns:
      `coverage`, the share of images answered, rising to 1, and `risk`, the share of these that is wrong.
    """
    order = np.argsort(score, kind="stable")
    answered = np.arange(1, len(order) + 1)
    return {
        "coverage": (answered / len(order)).tolist(),
        "risk": (np.cumsum(wrong[order]) / answered).tolist(),
    }
