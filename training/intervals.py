"""95 % intervals of rates and areas, and a test of paired answers, that know patients.

A patient's images resemble one another, so they tell less than as many images of different patients.
Where every patient has one image, a rate has Wilson's interval (Wilson 1927). Where some have several, whole
patients are drawn with replacement (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993), and the
interval is never narrower than Wilson's for one image of each patient: a bootstrap of few patients, or of
answers that are all right, would be.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DRAWS, SEED = 2000, 0
_LEVELS = (0.025, 0.975)
_Z = 1.959963984540054  # of a normal distribution, 95 % lie within
_AT_ONCE = 2**22  # weights of a block of draws: 32 MB
_HALVINGS = 60

# `value`, `low` and `high`, all None if there is nothing to measure.
Rate = dict[str, float | None]
NOTHING: Mapping[str, float | None] = {"value": None, "low": None, "high": None}


def rate(hits: float, total: float) -> Rate:
    """Returns hits / total with Wilson's interval, for independent images.

    Args:
      hits, total: counts, 0 <= hits <= total; fractions are allowed.

    Returns:
      `value`, `low` and `high` in 0..1, all None if the total is zero.
    """
    if not total:
        return dict(NOTHING)
    value = hits / total
    spread = _Z**2 / total
    middle = (value + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (value * (1 - value) + spread / 4)) / (1 + spread)
    return {
        "value": value,
        "low": max(0.0, float(middle - half)) if hits else 0.0,
        "high": min(1.0, float(middle + half)) if hits < total else 1.0,
    }


def share(hits: ArrayLike, patients: ArrayLike) -> Rate:
    """Returns the share of images that are hits, with an interval that knows patients.

    Args:
      hits: bool [images].
      patients: identifies the patient of each image, [images].

    Returns:
      see `rate`. The value is that of all images, whoever they are of.
    """
    right = np.asarray(hits, bool)
    if not len(right):
        return dict(NOTHING)
    number = _numbered(patients)
    images, hits_of = np.bincount(number), np.bincount(number, right)
    value = float(right.mean())
    one_each = {**rate(value * len(images), len(images)), "value": value}
    if images.max() == 1:
        return one_each
    # Patients with as many hits and images are drawn together: there are few kinds.
    kinds, count = np.unique(np.stack([hits_of, images]), axis=1, return_counts=True)
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(len(images), count / count.sum(), DRAWS)
    return _wider(one_each, (drawn @ kinds[0]) / (drawn @ kinds[1]))


def roc_auc(
    is_class: ArrayLike,
    score: ArrayLike,
    patients: ArrayLike,
    groups: ArrayLike | None = None,
) -> Rate:
    """Returns the area under the ROC curve, with an interval by a bootstrap over patients.

    The interval is never narrower than Newcombe's for one image of each patient on each side ("Confidence
    intervals for an effect size measure based on the Mann-Whitney statistic. Part 2", method 5, Statistics in
    Medicine 2006): a bootstrap of few patients, or of two sides that do not overlap, would be.

    Args:
      is_class: bool [images].
      score: higher for the class, float [images].
      patients: identifies the patient of each image, [images].
      groups: the group of each image, [images]: only images of one group are compared; None: all are.

    Returns:
      `value`, `low` and `high` in 0..1, all None if no group has images of both sides.
    """
    truth, scores = np.asarray(is_class, bool), np.asarray(score, float)
    number, group = _numbered(patients), None if groups is None else _numbered(groups)
    area = _area(truth, scores, group)
    value = float(area(np.ones((1, len(truth))))[0])
    if np.isnan(value):
        return dict(NOTHING)
    count = int(number.max()) + 1
    one_each = _newcombe(value, len(np.unique(number[truth])), len(np.unique(number[~truth])))
    random = np.random.default_rng(SEED)
    areas, block = [], max(1, _AT_ONCE // len(truth))
    for start in range(0, DRAWS, block):
        size = min(block, DRAWS - start)
        chosen = random.integers(count, size=(size, count)) + count * np.arange(size)[:, np.newaxis]
        drawn = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count)
        areas.append(area(drawn[:, number]))
    drawn_areas = np.concatenate(areas)
    drawn_areas = drawn_areas[
        ~np.isnan(drawn_areas)
    ]  # without images of one side there is no curve
    return _wider(one_each, drawn_areas) if len(drawn_areas) else one_each


def _numbered(patients: ArrayLike) -> np.ndarray:
    number: np.ndarray = np.unique(np.asarray(patients, str), return_inverse=True)[1]
    return number


def _wider(one_each: Rate, drawn: np.ndarray) -> Rate:
    low, high = map(float, np.quantile(drawn, _LEVELS))
    return {
        "value": one_each["value"],
        "low": min(low, one_each["low"] or 0.0),
        "high": max(high, one_each["high"] or 0.0),
    }


def _area(
    truth: np.ndarray, score: np.ndarray, group: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the areas by weights [draws, images]; NaN where no group has weight on both sides."""
    numbers = np.zeros(len(truth), int) if group is None else group
    of_groups = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    compared = [
        (rows, _pairs(truth[rows], score[rows]))
        for rows in of_groups
        if 0 < truth[rows].sum() < len(rows)
    ]

    def areas(weights: np.ndarray) -> np.ndarray:
        won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for rows, of_group in compared:
            won_there, pairs_there = of_group(weights[:, rows])
            won += won_there
            pairs += pairs_there
        shares: np.ndarray = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return shares

    return areas


def _pairs(
    truth: np.ndarray, score: np.ndarray
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns by weights [draws, images] in how many pairs the class is scored higher, and all pairs."""
    order = np.argsort(score, kind="stable")
    ascending = score[order]
    begins = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])
    positive = truth[order]

    def counted(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weighted = weights[:, order].astype(float)
        ours = np.add.reduceat(weighted * positive, begins, axis=1)
        theirs = np.add.reduceat(weighted * ~positive, begins, axis=1)
        below = np.cumsum(theirs, axis=1) - theirs / 2  # of equal scores half are below
        return np.einsum("ij,ij->i", ours, below), ours.sum(axis=1) * theirs.sum(axis=1)

    return counted


def _newcombe(value: float, ours: int, theirs: int) -> Rate:
    more = (ours + theirs) / 2 - 1

    def outside(area: float) -> bool:
        spread = 1 + more * ((1 - area) / (2 - area) + area / (1 + area))
        variance = area * (1 - area) * spread / (ours * theirs)
        return (value - area) ** 2 > _Z**2 * variance

    def end(far: float) -> float:
        near = value
        for _ in range(_HALVINGS):
            middle = (far + near) / 2
            far, near = (middle, near) if outside(middle) else (far, middle)
        return near

    return {"value": value, "low": end(0.0), "high": end(1.0)}


def drop(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns the drop from one rate to another, with its 95 % interval.

    Newcombe: "Interval estimation for the difference between independent proportions" (1998), method 10; of
    any intervals of the rates (Zou and Donner: "Construction of confidence limits about effect measures",
    2008).

    Args:
      before, after: see `rate` and `share`; of different patients.

    Returns:
      `value`, `low` and `high`, in -1..1, all None if one of the rates is.
    """
    if before["value"] is None or after["value"] is None:
        return dict(NOTHING)
    p, low, high = (float(before[key] or 0) for key in ("value", "low", "high"))
    q, their_low, their_high = (float(after[key] or 0) for key in ("value", "low", "high"))
    return {
        "value": p - q,
        "low": p - q - float(np.hypot(p - low, their_high - q)),
        "high": p - q + float(np.hypot(high - p, q - their_low)),
    }


def chance_of_difference(
    only_ours: ArrayLike,
    only_theirs: ArrayLike,
    patients: ArrayLike,
) -> float:
    """Returns the probability of a difference this large if both models were equally good.

    An exact test over patients: if the models were equally good, each patient's difference could as well have
    the other sign (Fisher 1935). Where every patient has one image, it is McNemar's exact test (1947).

    Args:
      only_ours, only_theirs: whether only one model is right about an image, bool [images].
      patients: identifies the patient of each image, [images].

    Returns:
      in 0..1, two-sided; 1 if there is no difference.
    """
    difference = np.asarray(only_ours, int) - np.asarray(only_theirs, int)
    if not len(difference):
        return 1.0
    of_patient = np.rint(np.bincount(_numbered(patients), difference)).astype(int)
    steps = np.abs(of_patient[of_patient != 0])
    # The distribution of the sum over all signs; its middle is zero. Of steps of one size it is binomial.
    chances = np.ones(1)
    for size, count in zip(*np.unique(steps, return_counts=True), strict=True):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = _binomial(count)
        length = len(chances) + len(of_size) - 1
        both = np.fft.rfft(chances, length) * np.fft.rfft(of_size, length)
        chances = np.fft.irfft(both, length)
    reach = int(steps.sum())
    sums = np.abs(np.arange(-reach, reach + 1))
    chance = float(chances[sums >= abs(int(of_patient.sum()))].sum())
    return min(1.0, max(0.0, chance))


def _binomial(count: int) -> np.ndarray:
    """Returns the chances of 0 to `count` heads of `count` coins."""
    factorials = np.r_[0.0, np.cumsum(np.log(np.arange(1, count + 1)))]
    logarithms = factorials[-1] - factorials - factorials[::-1] - count * np.log(2)
    chances: np.ndarray = np.exp(logarithms)
    return chances
