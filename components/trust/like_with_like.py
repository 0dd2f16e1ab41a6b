"""How well covid is told where neither source nor age is a clue."""

from typing import Any

import numpy as np
import pandas as pd

from components.data.sources import kermany
from components.trust.rules import FEWEST_ALIKE
from core.labels import COVID
from training import metrics

ADULT, CHILD, UNKNOWN = "adult", "child", "unknown"
_OF_AGE = 18
_DRAWS = 2000


def age_groups(table: pd.DataFrame) -> pd.Series:
    """Returns `ADULT`, `CHILD` (under 18 years) or `UNKNOWN` for each row.

    Args:
      table: with `age`, in years or NaN, and `source`. Kermany's patients are children of one to five years.
    """
    of_age = np.where(table["age"] >= _OF_AGE, ADULT, CHILD)
    unknown = np.where(table["source"] == kermany.NAME, CHILD, UNKNOWN)
    return pd.Series(np.where(table["age"].notna(), of_age, unknown), table.index)


def like_with_like(table: pd.DataFrame, score: np.ndarray) -> dict[str, Any]:
    """Compares covid with the rest within shared ground: images of one source and one age group.

    Args:
      table: a row for each image: `truth` (its class), `source`, `age` and `patient`.
      score: the probability of covid, float [N].

    Returns:
      `ground`: rows of `source`, `age`, and numbers of `covid` images and of `others`, of the sources and
      age groups that have both; `covid` and `others`, their sums; and `auc`, the area under the ROC curve
      over pairs of images of the same ground, with its 95 % interval (see `interval_of_patients`); None
      if there are fewer than ten of either.
    """
    is_covid = (table["truth"] == COVID).to_numpy()
    ground: list[dict[str, Any]] = []
    shared = np.full(len(table), -1)
    sources, ages = table["source"].to_numpy(), age_groups(table).to_numpy()
    for source, age in sorted(set(zip(sources, ages, strict=True))):
        rows = np.flatnonzero((sources == source) & (ages == age))
        covid = int(is_covid[rows].sum())
        if 0 < covid < len(rows):
            shared[rows] = len(ground)
            ground.append(
                {"source": source, "age": age, "covid": covid, "others": len(rows) - covid}
            )
    counts = {side: sum(row[side] for row in ground) for side in ("covid", "others")}
    kept = shared >= 0
    auc = None
    if min(counts.values()) >= FEWEST_ALIKE:
        auc = interval_of_patients(
            score[kept], is_covid[kept], shared[kept], table["patient"].to_numpy()[kept]
        )
    return {"ground": ground, **counts, "auc": auc}


def alarms_of_adults(table: pd.DataFrame) -> dict[str, Any]:
    """Returns how many adults without covid, of any source, are called covid.

    Args:
      table: as in `like_with_like`, with `predicted`, the most probable class.

    Returns:
      `images`, and `false_alarms`, a rate (see `training.metrics.rate`); without a value if there are fewer
      than ten images.
    """
    adults = table[(age_groups(table) == ADULT) & (table["truth"] != COVID)]
    called, images = int((adults["predicted"] == COVID).sum()), len(adults)
    judged = images >= FEWEST_ALIKE
    return {"images": images, "false_alarms": metrics.rate(called, images if judged else 0)}


def interval_of_patients(
    score: np.ndarray, positive: np.ndarray, ground: np.ndarray, patients: np.ndarray
) -> dict[str, float]:
    """Returns the area under the ROC curve over pairs of the same ground, with its 95 % interval.

    The interval is the percentile bootstrap over patients (seeded, 2,000 draws): images of a patient are
    drawn together, because they are alike.

    Args:
      score: float [N].
      positive: bool [N].
      ground: int [N]: pairs are formed within equal numbers. At least one has both sides.
      patients: [N].

    Returns:
      `value`, `low` and `high`, in 0..1.
    """
    names, patient = np.unique(patients.astype(str), return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), _DRAWS
    )
    times = np.vstack([np.ones(len(names), int), drawn]).astype(np.float32)  # the first: as it is
    won, pairs = np.zeros(len(times)), np.zeros(len(times))
    for number in np.unique(ground):
        ours, theirs = (np.flatnonzero((ground == number) & side) for side in (positive, ~positive))
        difference = score[ours][:, np.newaxis] - score[theirs][np.newaxis]
        wins = ((np.sign(difference) + 1) / 2).astype(np.float32)
        weights, others = times[:, patient[ours]], times[:, patient[theirs]]
        won += ((weights @ wins) * others).sum(axis=1)
        pairs += weights.sum(axis=1) * others.sum(axis=1)
    areas = won[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(areas[1:], (0.025, 0.975)) if len(areas) > 1 else (0.0, 1.0)
    return {"value": float(areas[0]), "low": float(low), "high": float(high)}
