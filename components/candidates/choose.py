"""Step `choose`: chooses the examples to pretrain a base on; see `components.candidates.pretrain`."""

from pathlib import Path

import numpy as np
import pandas as pd

from components.data import splits
from components.data.example_tables import fingerprint
from components.data.sources import kermany
from core import divisions
from core.artifacts import EXAMPLES, SUMMARY
from core.divisions import HOLD_OUT, TRAIN, VALIDATION
from core.errors import UserError
from core.files import read_json, write_aside, write_json
from core.progress import logger
from core.tables import read_table
from training.recipes import Recipe

# One of them is for validation.
_PARTS = 10


def choose(recipe: Recipe, examples: Path, output: Path, *, seed: int = 0) -> pd.DataFrame:
    """Chooses Kermany's examples that share no patient or picture with a recipe's test images.

    Args:
      recipe: its task names the labels that it is tested on.
      examples: the output of `ingest`, made as for the recipe's own training.
      output: the directory to write, with `examples.parquet` and `summary.json` as `ingest` writes
        them; nine of ten examples are for training, the others for validation. Written aside and
        renamed.
      seed: of that split.

    Returns:
      the chosen examples, as in `examples.parquet`.

    Raises:
      UserError: the recipe is trained from scratch as published, or too few images or patients are left.
    """
    if not recipe.pretrained:
        raise UserError(f"pretrain: {recipe.name} is trained from scratch, as published")
    table = read_table(examples / EXAMPLES)
    tested = tested_on(table, recipe, divisions.divisions(_protocol(table))).to_numpy()
    group = splits.groups(table)
    free = ~np.isin(group, np.unique(group[tested])) & (table["source"] == kermany.NAME).to_numpy()
    chosen = table[free].reset_index(drop=True)
    if chosen["label"].nunique() < 2:
        raise UserError(
            f"pretrain: without the test images of {recipe.name} and their relatives, {kermany.NAME} has "
            f"{len(chosen)} images of {chosen['label'].nunique()} classes left; at least two classes are "
            "needed. Give more images, or draw fewer for the recipe (--subset paper)."
        )
    patients = pd.Series(group[free]).groupby(chosen["label"]).nunique()
    if patients.min() < _PARTS:
        raise UserError(
            f"pretrain: without the test images of {recipe.name} and their relatives, {kermany.NAME} has "
            f"only {patients.min()} unrelated patients of the class {patients.idxmin()}; at least {_PARTS} "
            "are needed to train and validate. Give more images, or draw fewer for the recipe (--subset "
            "paper)."
        )
    fold = splits.fold_of_each(chosen, group[free], _PARTS, seed)
    chosen["split"] = np.where(fold == 0, VALIDATION, TRAIN)
    summary = read_json(examples / SUMMARY)
    with write_aside(output) as aside:
        aside.mkdir()
        chosen.to_parquet(aside / EXAMPLES, index=False)
        write_json(aside / SUMMARY, {**summary, "fingerprint": fingerprint(chosen)})
    logger.info("%d images to pretrain on, unrelated to the test images", len(chosen))
    return chosen


def _protocol(table: pd.DataFrame) -> str:
    folds = sorted(name for name in set(table["split"]) if name.startswith("fold-"))
    return f"{len(folds)}-fold" if folds else HOLD_OUT


def tested_on(table: pd.DataFrame, recipe: Recipe, names: tuple[str, ...]) -> pd.Series:
    """Returns which examples a recipe is tested on, bool [rows].

    Args:
      table: with the columns `split` and `label`.
      recipe: its task names its labels.
      names: of the divisions that it is tested on.
    """
    parts = {part for name in names for part in divisions.division(name).test}
    return table["split"].isin(parts) & table["label"].isin(list(recipe.task))
