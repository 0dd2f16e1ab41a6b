"""Where splits are made: train, validation and test, so that no patient stands on both sides.

The folders of a source are never used. Images are first tied into groups: those of one patient, and
those that are the same picture (the same bytes, or nearly the same perceptual hash; published
collections hold one patient under two ids). A group goes into one split as a whole.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from components.divisions import TEST, TRAIN, VALIDATION, fold_name
from components.errors import UserError

# Of 256 bits; in a wide gap between pairs of one picture and any others: see docs/data.md.
NEAR_DUPLICATE_BITS = 32

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
    octets = np.array([list(bytes.fromhex(text)) for text in perceptual_hashes], np.uint8)
    # With bits as -1 and 1, a product of two hashes is (bits - 2 x distance): a matrix
    # multiplication compares all pairs.
    signs = np.unpackbits(octets, axis=1).astype(np.float32) * 2 - 1
    least = signs.shape[1] - 2 * NEAR_DUPLICATE_BITS
    found = []
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK]
        for other in range(start, len(signs), _BLOCK):
            i, j = np.nonzero(block @ signs[other : other + _BLOCK].T >= least)
            pairs = np.stack([i + start, j + other], axis=1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def groups(examples: pd.DataFrame) -> np.ndarray:
    """Returns which images must stay together.

    Args:
      examples: with the columns `patient`, `sha256` and `perceptual_hash`.

    Returns:
      int array [rows]: equal numbers where two images share a patient or a picture, directly or
      through others.
    """
    size = len(examples)
    links = [near_duplicates(examples["perceptual_hash"])]
    for column in ("patient", "sha256"):
        first = examples.groupby(column)[column].transform(lambda values: values.index[0])
        links.append(
            np.stack([np.arange(size), examples.index.get_indexer(pd.Index(first))], axis=1)
        )
    left, right = np.concatenate(links).T
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1])


def assign(examples: pd.DataFrame, seed: int, *, folds: int = 0, grouped: bool = True) -> pd.Series:
    """Returns the split of each image: about 70 % train, 10 % validation, 20 % test; or its fold.

    Stratified by label, whole groups, and the same for the same rows and seed, whatever the rows'
    order.

    Args:
      examples: with the columns `id`, `label`, `patient`, `sha256` and `perceptual_hash`.
      seed: any non-negative integer.
      folds: for cross-validation, the number of equal parts, named by `fold_name`; 0: the three
        splits.
      grouped: False splits image by image, as the papers did, and leaks.

    Raises:
      UserError: a label's images cannot be in every part, for want of patients.
    """
    ordered = examples.sort_values("id").reset_index(drop=True)
    group = groups(ordered)
    parts = folds or _FOLDS
    per_label = pd.Series(group).groupby(ordered["label"]).nunique()
    for label, count in per_label.items():
        if count < parts:
            raise UserError(
                f"split: the images labelled {label!r} come from {count} unrelated patients; at "
                f"least {parts} are needed to put some into each part. Add images of other patients, "
                "or leave this label's recipes out."
            )
    split = _names(fold_of_each(ordered, group if grouped else None, parts, seed), folds)
    split.index = pd.Index(ordered["id"])
    return pd.Series(split.loc[examples["id"]].to_numpy(), index=examples.index, name="split")


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """How many test images have a relative (patient or same picture) among the training images.

    In cross-validation every image is a test image once.

    Attributes:
      ours: under the split that `assign` made; zero where it is grouped.
      random: had the images been split at random in the same proportions, as the papers did.
      folders: had the sources' own folders been used, over the images that have one.
      test: the number of test images under each, in the order ours, random, folders.
    """

    ours: int
    random: int
    folders: int
    test: tuple[int, int, int]


def leakage(examples: pd.DataFrame, seed: int, *, folds: int = 0) -> Leakage:
    """Returns what leaks under our split and what would have leaked under two usual ones.

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
      group: what must stay together, int [rows], or None.
      folds: their number.
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
