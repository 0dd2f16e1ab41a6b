"""Where covid and each other class can be compared like with like: within one source and age group.

Elsewhere a model that tells the classes apart may tell the sources apart, or adults from children.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.data.sources import kermany
from core.divisions import TEST, TRAIN
from core.labels import COVID, LABELS

ADULT, CHILD, UNKNOWN = "adult", "child", "unknown"
# The columns that make two images alike; see `age_groups`.
GROUND = ["source", "age_group"]
# As many test images of the other label, or the comparison says little.
ENOUGH = 10
_GROWN_UP = 18  # years
_SO = (
    "no test on these data can tell a model of covid from a model of the source. Add a source (--source) "
    "that has adults without covid, or both."
)


def age_groups(examples: pd.DataFrame) -> pd.Series:
    """Returns the age group of each image: `ADULT` from 18 years, `CHILD` or `UNKNOWN`.

    Args:
      examples: with the columns `age` (years) and `source`. Kermany's patients are children.
    """
    group = pd.Series(UNKNOWN, examples.index)
    group[examples["source"] == kermany.NAME] = CHILD
    group[examples["age"] < _GROWN_UP] = CHILD
    group[examples["age"] >= _GROWN_UP] = ADULT
    return group


def shared_ground(examples: pd.DataFrame) -> dict[str, Any]:
    """Returns how many images there are of each source and age group, and where covid meets other labels.

    Args:
      examples: with the columns `source`, `age`, `label`, `patient` and `split`.

    Returns:
      `counts`: rows of `source`, `age_group`, `label`, and `images` and `patients` of `train` and `test`;
      `shared`: by each other label that there is, the grounds where both it and covid have test images: rows
      of `source` and `age_group`, with the numbers of test images of `covid` and of the `others`. Unknown
      ages are a group of their own.
    """
    table = examples.assign(age_group=age_groups(examples))
    counts = []
    for (source, group, label), members in table.groupby([*GROUND, "label"]):
        row: dict[str, Any] = {"source": source, "age_group": group, "label": label}
        for split in (TRAIN, TEST):
            of_split = members[members["split"] == split]
            row[split] = {"images": len(of_split), "patients": int(of_split["patient"].nunique())}
        counts.append(row)
    test = table[table["split"] == TEST]
    by_ground = test.groupby([*GROUND, "label"]).size().unstack(fill_value=0)
    shared: dict[str, list[dict[str, Any]]] = {}
    for label in LABELS:
        if label != COVID and (table["label"] == label).any():
            shared[label] = []
            if {COVID, label} <= set(by_ground.columns):
                both = by_ground[(by_ground[COVID] > 0) & (by_ground[label] > 0)]
                shared[label] = [
                    {
                        "source": source,
                        "age_group": group,
                        "covid": int(covid),
                        "others": int(others),
                    }
                    for (source, group), covid, others in zip(
                        both.index, both[COVID], both[label], strict=True
                    )
                ]
    return {"counts": counts, "shared": shared}


def warning(ground: Mapping[str, Any]) -> str:
    """Returns what to say of labels that share no ground with covid, or little; empty if there are none.

    Args:
      ground: see `shared_ground`.
    """
    others = {
        label: sum(row["others"] for row in grounds) for label, grounds in ground["shared"].items()
    }
    nowhere = [label for label, count in others.items() if not count]
    little = [f"{count} of {label}" for label, count in others.items() if 0 < count < ENOUGH]
    sentences = []
    if len(nowhere) == 1:
        sentences.append(f"{COVID} and {nowhere[0]} share no source and no age group here: {_SO}")
    elif nowhere:
        named = " and ".join([", ".join(nowhere[:-1]), nowhere[-1]])
        sentences.append(f"{COVID} shares no source and no age group with {named} here: {_SO}")
    if little:
        sentences.append(
            f"Few test images of other labels share source and age group with {COVID}: {', '.join(little)}."
        )
    return " ".join(sentences)
