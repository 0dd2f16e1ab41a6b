"""Splits the examples into train, validation and test, so that no patient is in two of them.

The folders of a source are never used. Images are first grouped: a group has all images of a patient and all
copies of a picture (the same bytes, or nearly the same perceptual hash, because some patients of published
collections have two ids). A whole group goes into one split.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from components.data.relatives import IDENTITY, NEAR_DUPLICATE_BITS, same_patient, signs_of
from core.divisions import TEST, TRAIN, VALIDATION, fold_name
from core.errors import UserError

# What is kept together in a split; RANDOM: nothing.
PATIENT, ORIGIN, RANDOM = "patient", "origin", "random"

# Ten folds: two are the test split (20 %, as in the CoroNet paper), one is for validation.
_FOLDS = 10
_TEST_FOLDS = (0, 1)
_VALIDATION_FOLDS = (2,)
_BLOCK = 2048


def near_duplicates(perceptual_hashes: pd.Series) -> np.ndarray:
    """Returns the pairs of images that show nearly the same picture.

    Args:
      perceptual_hashes: hexadecimal digits, all of one length.

    Returns:
      int64 array [pairs, 2] of positions, the smaller first: every pair at most
      `NEAR_DUPLICATE_BITS` apart. Compared block by block: memory grows with the number of images,
      not with its square.
    """
    if perceptual_hashes.empty:
        return np.empty((0, 2), np.int64)
    # A matrix multiplication compares all pairs.
    signs = signs_of(perceptual_hashes)
    least = signs.shape[1] - 2 * NEAR_DUPLICATE_BITS
    close = []
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK]
        for other in range(start, len(signs), _BLOCK):
            i, j = np.nonzero(block @ signs[other : other + _BLOCK].T >= least)
            pairs = np.stack([i + start, j + other], axis=1)
            close.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(close)


def groups(examples: pd.DataFrame, by: str = PATIENT) -> np.ndarray:
    """Returns which images must stay together.

    Args:
      examples: with the columns `patient`, `sha256` and `perceptual_hash`, and `origin` for `ORIGIN`.
      by: `PATIENT`; or `ORIGIN`: images of one site or publication stay together, too.

    Returns:
      int array [rows]: equal numbers where two images share a patient or a picture, directly or
      through others.
    """
    size = len(examples)
    links = [near_duplicates(examples["perceptual_hash"])]
    # Older archives hold ids that are not normalised.
    ties = [examples["patient"].map(same_patient), examples["sha256"]]
    if by == ORIGIN:  # an image of unknown origin is its own group
        alone = pd.Series(np.arange(size).astype(str), examples.index)
        ties.append((examples["source"] + "/" + examples["origin"]).fillna(alone))
    for tie in ties:
        _, first, which = np.unique(tie.to_numpy(dtype=str), return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(size), first[which]], axis=1))
    left, right = np.concatenate(links).T
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1])


def people(examples: pd.DataFrame) -> list[str]:
    """Returns whom each image shows, for what counts patients, such as intervals.

    Some patients of published collections have two names. Images that belong together by patient or picture
    show one person, who gets the first of the names.

    Args:
      examples: see `groups`.
    """
    patients = pd.Series(examples["patient"].to_numpy(str))
    return patients.groupby(groups(examples)).transform("min").tolist()


def assign(examples: pd.DataFrame, seed: int, *, folds: int = 0, by: str = PATIENT) -> pd.Series:
    """Returns the split of each image: about 70 % train, 10 % validation, 20 % test; or its fold.

    Stratified by label, whole groups, and the same for the same rows and seed, whatever the rows'
    order.

    Args:
      examples: with the columns `id`, `label` and those of `groups`.
      seed: any non-negative integer.
      folds: for cross-validation, the number of equal parts, named by `fold_name`; 0: the three
        splits.
      by: see `groups`; or `RANDOM`, which splits image by image, as the papers did, and leaks.

    Raises:
      UserError: a label has too few patients to be in every part.
    """
    ordered = examples.sort_values("id").reset_index(drop=True)
    group = groups(ordered, by)
    parts = folds or _FOLDS
    per_label = pd.Series(group).groupby(ordered["label"]).nunique()
    for label, count in per_label.items():
        if count < parts:
            raise UserError(
                f"split: the images labelled {label!r} come from {count} unrelated "
                f"{'places' if by == ORIGIN else 'patients'}; at least {parts} are needed to put some "
                "into each part. Add images of others, or leave out the recipes with this label."
            )
    split = _names(fold_of_each(ordered, None if by == RANDOM else group, parts, seed), folds)
    split.index = pd.Index(ordered["id"])
    return pd.Series(split.loc[examples["id"]].to_numpy(), index=examples.index, name="split")


def extend(examples: pd.DataFrame, earlier: pd.DataFrame, seed: int) -> pd.Series:
    """Returns the split of each image of a dataset that has grown; earlier images stay in their split.

    Relatives of a test image, by patient or picture, always belong to the test split, even after that image
    itself was withdrawn. A new group goes to the split that lacks its labels most.

    Args:
      examples: with the columns of `assign`.
      earlier: every image that ever had a split: `id`, `patient`, `sha256`, `perceptual_hash`, `split`.
      seed: determines the order of new groups of the same size.

    Returns:
      a split; or an empty text for an image that models were trained on before it turned out to be related
      to a test image: it must be used neither for training nor for the test.
    """
    withdrawn = earlier[~earlier["id"].isin(examples["id"])]
    everyone = pd.concat([examples[[*IDENTITY, "label"]], withdrawn[IDENTITY]], ignore_index=True)
    everyone = everyone.sort_values("id", ignore_index=True)
    everyone["group"] = groups(everyone)
    everyone["was"] = everyone["id"].map(earlier.set_index("id")["split"])
    everyone["split"] = ""
    for name in (VALIDATION, TRAIN, TEST):  # the last one that applies counts
        related = everyone["group"].isin(everyone["group"][everyone["was"] == name])
        everyone.loc[related, "split"] = name
    trained_on = everyone["was"].isin((TRAIN, VALIDATION)) & (everyone["split"] == TEST)
    fresh = everyone["split"] == ""
    used = everyone[everyone["id"].isin(examples["id"]) & ~trained_on]
    everyone.loc[fresh, "split"] = _placed(
        used[used["split"] == ""], used[used["split"] != ""], seed
    )
    everyone.loc[trained_on, "split"] = ""
    split = everyone.set_index("id")["split"].loc[examples["id"]]
    return pd.Series(split.to_numpy(), index=examples.index, name="split")


def _placed(fresh: pd.DataFrame, placed: pd.DataFrame, seed: int) -> pd.Series:
    """Returns the split of each image of new groups: the split that lacks their labels most."""
    shares = pd.Series(
        {
            TRAIN: 1 - (len(_TEST_FOLDS) + len(_VALIDATION_FOLDS)) / _FOLDS,
            VALIDATION: len(_VALIDATION_FOLDS) / _FOLDS,
            TEST: len(_TEST_FOLDS) / _FOLDS,
        }
    )
    labels = sorted(set(fresh["label"]) | set(placed["label"]))
    have = pd.crosstab(placed["label"], placed["split"]).reindex(
        index=labels, columns=shares.index, fill_value=0
    )
    target = np.outer(pd.concat([fresh, placed])["label"].value_counts().loc[labels], shares)
    of_group = pd.crosstab(fresh["group"], fresh["label"]).reindex(columns=labels, fill_value=0)
    lot = pd.util.hash_array(
        (fresh.groupby("group")["id"].min() + f"/{seed}").to_numpy(dtype=object), categorize=False
    )
    # Large groups first: small ones fill the gaps.
    order = np.lexsort((lot, -of_group.sum(axis=1).to_numpy()))
    counts, chosen = have.to_numpy().astype(float), {}
    for group, members in zip(of_group.index[order], of_group.to_numpy()[order], strict=True):
        best = int((members @ ((target - counts) / target)).argmax())
        counts[:, best] += members
        chosen[group] = shares.index[best]
    return fresh["group"].map(chosen)


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """How many test images have a relative (patient or same picture) among the training images.

    In cross-validation, every image is a test image once.

    Attributes:
      ours: with the split of `assign`; zero if that keeps groups together.
      random: with a random split in the same proportions, as in the papers.
      folders: with the sources' own folders, for the images that have one.
      test: the number of test images in each case, in the order ours, random, folders.
    """

    ours: int
    random: int
    folders: int
    test: tuple[int, int, int]


def leakage(examples: pd.DataFrame, seed: int, *, folds: int = 0) -> Leakage:
    """Returns how much our split leaks, and how much two common splits would leak.

    Args:
      examples: with the columns of `assign`, and `split` and `folder_split`.
      seed: of the random split.
      folds: as for `assign`.
    """
    examples = examples.sort_values("id").reset_index(drop=True)
    group = groups(examples)
    random = _names(fold_of_each(examples, None, folds or _FOLDS, seed), folds)
    counts = [
        _leaking(group, split.to_numpy())
        for split in (examples["split"], random, examples["folder_split"])
    ]
    return Leakage(
        ours=counts[0][0],
        random=counts[1][0],
        folders=counts[2][0],
        test=(counts[0][1], counts[1][1], counts[2][1]),
    )


def fold_of_each(
    examples: pd.DataFrame, group: np.ndarray | None, folds: int, seed: int
) -> np.ndarray:
    """Returns the fold of each image, 0 to folds - 1, stratified by label.

    Args:
      examples: with the column `label`.
      group: int [rows], equal for images that must stay together; or None.
      folds: the number of folds.
      seed: any non-negative integer.
    """
    folder = StratifiedKFold if group is None else StratifiedGroupKFold
    parts = folder(folds, shuffle=True, random_state=seed).split(examples, examples["label"], group)
    numbers = np.full(len(examples), -1)
    for number, (_, held_out) in enumerate(parts):
        numbers[held_out] = number
    return numbers


def _names(fold: np.ndarray, folds: int) -> pd.Series:
    if folds:
        return pd.Series([fold_name(number + 1, folds) for number in fold])
    is_test, is_validation = np.isin(fold, _TEST_FOLDS), np.isin(fold, _VALIDATION_FOLDS)
    return pd.Series(np.select([is_test, is_validation], [TEST, VALIDATION], TRAIN))


def _leaking(group: np.ndarray, split: np.ndarray) -> tuple[int, int]:
    """Returns how many test images have a relative in training, and how many there are."""
    if any(str(name).startswith("fold-") for name in split):
        parts = pd.Series(split).groupby(group).transform("nunique")
        return int((parts > 1).sum()), len(split)
    trained_on = np.unique(group[split == TRAIN])
    test = group[split == TEST]
    return int(np.isin(test, trained_on).sum()), len(test)
