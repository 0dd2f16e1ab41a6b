"""What a model's features reveal of the source and the age of its images. No rule depends on it."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.data.shared_ground import ADULT, CHILD, age_groups
from core.labels import COVID
from training import intervals

# Enough for an area within a few hundredths, in seconds.
_MOST_IMAGES = 500
_FEWEST = 8
_FOLDS = 4


def sample(table: pd.DataFrame) -> pd.DataFrame:
    """Returns some images, as many of each source and class as there are, or an equal share.

    Args:
      table: with the columns `source` and `truth`.
    """
    shuffled = table.sample(frac=1, random_state=0)
    rank = shuffled.groupby(["source", "truth"]).cumcount()
    return shuffled[rank.rank(method="first") <= _MOST_IMAGES].reset_index(drop=True)


def probes(features: np.ndarray, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Asks linear classifiers of a model's features for the source and the age.

    Args:
      features: the input of the model's last layer, float32 [N, features].
      table: a row for each image: `truth` (its class), `source`, `age` and `patient`.

    Returns:
      rows of `what`, `images`, and `auc` (see `intervals.roc_auc`), cross-validated by patient: within each
      class, of its two largest sources, and of adults or children without covid. There is no row where a side
      has fewer than 8 images or 4 patients.
    """
    questions = []
    for label, members in table.groupby("truth", sort=False):
        sources = members["source"].value_counts().index[:2]
        is_first = table["source"] == sources[0]
        asked = (table["truth"] == label) & table["source"].isin(sources)
        questions.append((f"source of {label}", asked, is_first))
    group = age_groups(table)
    asked = (table["truth"] != COVID) & group.isin([ADULT, CHILD])
    questions.append((f"{ADULT} or {CHILD}, {COVID} left out", asked, group == ADULT))
    rows = []
    for what, asked, is_first in questions:
        row = _separated(features[asked], table[asked], is_first[asked].to_numpy())
        if row:
            rows.append({"what": what, **row})
    return rows


def _separated(
    features: np.ndarray, table: pd.DataFrame, is_first: np.ndarray
) -> dict[str, Any] | None:
    for side in (is_first, ~is_first):
        # Every fold must have patients of both to learn from.
        if side.sum() < _FEWEST or table["patient"][side].nunique() < _FOLDS:
            return None
    linear = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    )
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    score = cross_val_predict(
        linear, features, is_first.astype(int), groups=table["patient"], cv=folds,
        method="decision_function",
    )  # fmt: skip
    return {
        "images": len(table),
        "auc": intervals.roc_auc(is_first, score, table["patient"]),
    }
