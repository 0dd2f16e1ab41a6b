"""Where covid and each other class can be compared like with like: within one source and age group.

Elsewhere a model that tells the classes apart may tell the sources apart, or adults from children. Images of
unknown age share no ground: they may be of children and adults.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.data.sources import covid_chestxray, kermany
from core.divisions import TEST, TRAIN
from core.labels import COVID, LABELS

ADULT, CHILD, UNKNOWN = "adult", "child", "unknown"
# The columns that make two images alike; see `grounded`.
GROUND = ["source", "age_group"]
# As many test patients of the other label, or the comparison says little.
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


def grounded(examples: pd.DataFrame) -> pd.DataFrame:
    """Returns the images whose ground is known, with the columns of `GROUND`.

    Args:
      examples: with the columns `source`, `origin` and `age`.

    Returns:
      without images of unknown age, and with `age_group`. Where a user's source names places, `source` is
      the source and the place, and images without a place are left out. Each of the two published datasets
      is one source: nearly every COVID image of theirs has an origin of its own.
    """
    source, origin = examples["source"], examples["origin"].fillna("")
    given = ~source.isin([covid_chestxray.NAME, kermany.NAME])
    has_places = source.isin(source[given & (origin != "")])
    group = age_groups(examples)
    known = (group != UNKNOWN) & ~(has_places & (origin == ""))
    place = source.where(~has_places, source + "/" + origin)
    return examples.assign(source=place, age_group=group)[known]


def shared_ground(examples: pd.DataFrame) -> dict[str, Any]:
    """Returns how many images there are of each source and age group, and where covid meets other labels.

    Args:
      examples: with the columns `source`, `origin`, `age`, `label`, `patient` and `split`.

    Returns:
      `counts`: rows of `source`, `age_group`, `label`, and `images` and `patients` of `train` and `test`;
      `shared`: by each other label that there is, the grounds where both it and covid have test images: rows
      of `source` and `age_group` (see `grounded`), with the numbers of test patients of `covid` and of the
      `others`.
    """
    table = examples.assign(age_group=age_groups(examples))
    counts = []
    for (source, group, label), members in table.groupby([*GROUND, "label"]):
        row: dict[str, Any] = {"source": source, "age_group": group, "label": label}
        for split in (TRAIN, TEST):
            of_split = members[members["split"] == split]
            row[split] = {"images": len(of_split), "patients": int(of_split["patient"].nunique())}
        counts.append(row)
    test = grounded(examples[examples["split"] == TEST])
    by_ground = test.groupby([*GROUND, "label"])["patient"].nunique().unstack(fill_value=0)
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
            f"Few test patients with other labels share source and age group with {COVID}: "
            f"{', '.join(little)}."
        )
    if sentences and any(row["age_group"] == UNKNOWN for row in ground["counts"]):
        sentences.append("Images of unknown age do not count: add their ages if you know them.")
    return " ".join(sentences)
