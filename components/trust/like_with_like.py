"""How well covid is told where neither source nor age is a clue."""

from typing import Any

import numpy as np
import pandas as pd

from components.data.shared_ground import ADULT, ENOUGH, GROUND, age_groups, grounded
from core.labels import COVID
from training import intervals


def like_with_like(table: pd.DataFrame, score: np.ndarray) -> dict[str, Any]:
    """Compares covid with the rest within shared ground: images of one source and one age group.

    Args:
      table: a row for each image: `truth` (its class), `patient`, and the columns of `grounded`.
      score: the probability of covid, float [N].

    Returns:
      `ground`: rows of `source`, `age_group`, and numbers of `covid` images and of `others`, of the sources
      and age groups that have both; `covid` and `others`, their sums; and `auc`, the area under the ROC curve
      over pairs of images of the same ground, with its 95 % interval (see `intervals.roc_auc`); None if
      either are of fewer than ten patients.
    """
    known = grounded(table.assign(covid=table["truth"] == COVID, score=score))
    shared = known.groupby(GROUND).filter(lambda of: of["covid"].any() and not of["covid"].all())
    ground = [
        {**dict(zip(GROUND, where, strict=True)), **_sides(members)}
        for where, members in shared.groupby(GROUND)
    ]
    auc = None
    patients = [shared["patient"][side].nunique() for side in (shared["covid"], ~shared["covid"])]
    if min(patients) >= ENOUGH:
        groups = shared.groupby(GROUND).ngroup()
        auc = intervals.roc_auc(shared["covid"], shared["score"], shared["patient"], groups)
    return {"ground": ground, **_sides(shared), "auc": auc}


def alarms_of_adults(table: pd.DataFrame) -> dict[str, Any]:
    """Returns how many adults without covid, of any source, are called covid.

    Args:
      table: as in `like_with_like`, with `predicted`, the most probable class.

    Returns:
      `images` and `patients`, and `false_alarms`, a rate (see `intervals.share`); without a value if there
      are fewer than ten patients.
    """
    adults = table[(age_groups(table) == ADULT) & (table["truth"] != COVID)]
    patients = int(adults["patient"].nunique())
    judged = adults if patients >= ENOUGH else adults[:0]
    return {
        "images": len(adults),
        "patients": patients,
        "false_alarms": intervals.share(judged["predicted"] == COVID, judged["patient"]),
    }


def _sides(images: pd.DataFrame) -> dict[str, int]:
    covid = int(images["covid"].sum())
    return {"covid": covid, "others": len(images) - covid}
