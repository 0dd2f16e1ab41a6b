"""What a model was trained and tuned with, so that nothing related to it is taken for unseen."""

from pathlib import Path

import numpy as np
import pandas as pd

from components.data.relatives import IDENTITY, relatives
from core.artifacts import MADE_WITH
from core.tables import read_table

# In the column `part`, besides the names of splits: images of the version that a training continued from, and
# images that its base was pretrained on.
EARLIER, PRETRAINED = "earlier version", "pretraining"


def made_with(model: Path, known: pd.DataFrame) -> pd.DataFrame:
    """Returns the images that a model was made with.

    Args:
      model: the output of `train` or of `pretrain`, or a version of the model store.
      known: images with the columns of `relatives.IDENTITY`. Earlier releases recorded ids and bytes alone;
        patients and pictures of such images are looked up here, by id.

    Returns:
      the columns of `relatives.IDENTITY`; no row if the model does not say what it was made with.
    """
    if not (model / MADE_WITH).is_file():
        return known[IDENTITY].iloc[:0]
    table = read_table(model / MADE_WITH)
    if set(IDENTITY) <= set(table.columns):
        return table[IDENTITY]
    return known.loc[known["id"].isin(table["id"]), IDENTITY]


def related(images: pd.DataFrame, model: Path, known: pd.DataFrame) -> np.ndarray:
    """Returns which images a model was made with, or with a relative: the same patient or picture.

    Args:
      images: with the columns of `relatives.IDENTITY`.
      model, known: see `made_with`.

    Returns:
      bool array [rows of `images`].
    """
    return relatives(images, made_with(model, known))
