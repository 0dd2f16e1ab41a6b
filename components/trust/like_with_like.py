"""How well covid is told where neither source nor age is a clue."""

from typing import Any

import numpy as np
import pandas as pd

from components.data.shared_ground import ADULT, ENOUGH, GROUND, age_groups
from core.labels import COVID
from training import intervals


def like_with_like(table: pd.DataFrame, score: np.ndarray) -> dict[str, Any]:
    """Compares covid with the rest within shared ground: images of one source and one age group.

    Args:
      table: a row for each image: `truth` (its class), `source`, `age` and `patient`.
      score: the probability of covid, float [N].

    Returns:
      `ground`: rows of `source`, `age_group`, and numbers of `covid` images and of `others`, of the sources
      and age groups that have both; `covid` and `others`, their sums; and `auc`, the area under the ROC curve
      over pairs of images of the same ground, with its 95 % interval (see `intervals.roc_auc`); None if there
      are fewer than ten of either.
    """
    grounded = table.assign(age_group=age_groups(table), covid=table["truth"] == COVID, score=score)
    shared = grounded.groupby(GROUND).filter(lambda of: of["covid"].any() and not of["covid"].all())
    ground = [
        {**dict(zip(GROUND, where, strict=True)), **_sides(members)}
        for where, members in shared.groupby(GROUND)
    ]
    counts = _sides(shared)
    auc = None
    if min(counts.values()) >= ENOUGH:
        groups = shared.groupby(GROUND).ngroup()
        auc = intervals.roc_auc(shared["covid"], shared["score"], shared["patient"], groups)
    return {"ground": ground, **counts, "auc": auc}


def alarms_of_adults(table: pd.DataFrame) -> dict[str, Any]:
    """Returns how many adults without covid, of any source, are called covid.

    Args:
      table: as in `like_with_like`, with `predicted`, the most probable class.

    Returns:
      `images`, and `false_alarms`, a rate (see `intervals.share`); without a value if there are fewer than
      ten images.
    """
    adults = table[(age_groups(table) == ADULT) & (table["truth"] != COVID)]
    judged = adults if len(adults) >= ENOUGH else adults[:0]
    return {
        "images": len(adults),
        "false_alarms": intervals.share(judged["predicted"] == COVID, judged["patient"]),
    }


def _sides(images: pd.DataFrame) -> dict[str, int]:
    covid = int(images["covid"].sum())
    return {"covid": covid, "others": len(images) - covid}
