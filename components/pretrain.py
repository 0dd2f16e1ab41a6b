"""Step `pretrain`: a base trained on chest X-rays, for where ImageNet's weights cannot be had.

It learns normal, bacterial and viral on Kermany's images, and never sees an image, a patient or a
near-duplicate that a later test split holds: `images.parquet` beside the weights says what it saw, and
whoever starts from them checks it (`require_unseen`).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components import divisions, splits
from components.divisions import HOLD_OUT, TRAIN, VALIDATION
from components.errors import UserError
from components.examples import EXAMPLES, SUMMARY, fingerprint
from components.files import read_json, write_aside, write_json
from components.labels import BACTERIAL, NORMAL, VIRAL
from components.progress import logger
from components.sources import kermany
from components.tables import read_table
from training import architectures, data, loop
from training.recipes import Recipe

IMAGES = "images.parquet"

_IDENTITY = ["id", "patient", "sha256", "perceptual_hash"]


def choose(recipe: Recipe, examples: Path, output: Path, *, seed: int = 0) -> pd.DataFrame:
    """Chooses Kermany's examples that share no patient or picture with what a recipe is tested on.

    Args:
      recipe: its task says which labels are tested on.
      examples: the output of `ingest`, made as for the recipe's own training.
      output: a directory to be made, with `examples.parquet` and `summary.json` as `ingest` writes
        them; nine in ten examples are to be trained on, the rest is for validation. Written aside and
        renamed.
      seed: of that.

    Returns:
      the chosen examples, as in `examples.parquet`.

    Raises:
      UserError: the recipe is trained from scratch as published, or too few images are left.
    """
    if not recipe.pretrained:
        raise UserError(f"pretrain: {recipe.name} is trained from scratch, as published")
    table = read_table(examples / EXAMPLES)
    tested = _tested(table, recipe, divisions.divisions(_protocol(table))).to_numpy()
    group = splits.groups(table)
    free = ~np.isin(group, np.unique(group[tested])) & (table["source"] == kermany.NAME).to_numpy()
    chosen = table[free].reset_index(drop=True)
    if chosen["label"].nunique() < 2:
        raise UserError(
            f"pretrain: besides what {recipe.name} is tested on, {len(chosen)} images of "
            f"{kermany.NAME} are left, of {chosen['label'].nunique()} classes; at least two are "
            "needed. Give more images, or draw fewer for the recipe (--subset paper)."
        )
    fold = splits.fold_of_each(chosen, group[free], 10, seed)
    chosen["split"] = np.where(fold == 0, VALIDATION, TRAIN)
    summary = read_json(examples / SUMMARY)
    with write_aside(output) as aside:
        aside.mkdir()
        chosen.to_parquet(aside / EXAMPLES, index=False)
        write_json(aside / SUMMARY, {**summary, "fingerprint": fingerprint(chosen)})
    logger.info("%d images to pretrain on, unrelated to those tested on", len(chosen))
    return chosen


def pretrain(
    recipe: Recipe,
    chosen: Path,
    records: Path,
    output: Path,
    checkpoints: Path,
    *,
    size: int = 0,
    seed: int = 0,
    precision: str = "auto",
) -> dict[str, Any]:
    """Trains a recipe's base, with a head of its own.

    Args:
      recipe: whose base, input size, batch and epochs are taken.
      chosen: the output of `choose`.
      records: the TFRecords of `chosen`.
      output: a directory to be made, to be given as `weights`. Written aside and renamed.
      size: side of the images in pixels, 0 for the recipe's: convolutions fit any, and a smaller one
        is quicker to pretrain.
      checkpoints, seed, precision: see `training.loop.train`.

    Returns:
      what `pretraining.json` says: the recipe, the base, numbers of images by class, the last epoch's
      validation accuracy, the data's fingerprint, seed, and the time it took.
    """
    manifest = data.read_manifest(records)
    labels = manifest["splits"][TRAIN]["labels"]
    teacher = replace(
        recipe,
        name=f"pretrain-{recipe.base}",
        task={name: name for name in (NORMAL, BACTERIAL, VIRAL) if name in labels},
        input_size=(size, size) if size else recipe.input_size,
        head="linear",
        view="full",
        frozen=False,
        learning_rate=1e-4,
    )
    trained = loop.train(
        teacher,
        records,
        checkpoints,
        weights=architectures.NONE,
        seed=seed,
        precision=precision,
    )
    counts = data.class_counts(manifest, teacher, (TRAIN,))
    told = {
        "recipe": recipe.name,
        "base": recipe.base,
        "input_size": list(teacher.input_size),
        "epochs": recipe.epochs,
        "images": sum(counts.values()),
        "classes": counts,
        "validation_accuracy": float(trained.history["val_accuracy"].iloc[-1]),
        "fingerprint": manifest["fingerprint"],
        "phantoms": manifest["phantoms"],
        "seed": seed,
        "seconds": round(float(trained.history["seconds"].sum()), 1),
    }
    seen = read_table(chosen / EXAMPLES, columns=_IDENTITY)
    with write_aside(output) as aside:
        aside.mkdir()
        trained.model.get_layer(architectures.BASE).save_weights(aside / architectures.BASE_WEIGHTS)
        seen.to_parquet(aside / IMAGES, index=False)
        write_json(aside / architectures.PRETRAINING, told)
    logger.info(
        "pretrained %s on %d images of %s: validation accuracy %.3f",
        recipe.base,
        told["images"],
        ", ".join(counts),
        told["validation_accuracy"],
    )
    return told


def _protocol(table: pd.DataFrame) -> str:
    folds = sorted(name for name in set(table["split"]) if name.startswith("fold-"))
    return f"{len(folds)}-fold" if folds else HOLD_OUT


def _tested(table: pd.DataFrame, recipe: Recipe, names: tuple[str, ...]) -> pd.Series:
    parts = {part for name in names for part in divisions.division(name).test}
    return table["split"].isin(parts) & table["label"].isin(list(recipe.task))


def require_unseen(weights: Path, examples: Path | None, recipe: Recipe, division: str) -> None:
    """Checks that a pretrained base has seen nothing that is related to what is tested on.

    Args:
      weights: the output of `pretrain`.
      examples: the output of `ingest`.
      recipe, division: what will be tested.

    Raises:
      UserError: it has, or there is nothing to check it against.
    """
    if examples is None:
        raise UserError(f"weights: {weights} was pretrained; give the examples to check it against")
    seen = read_table(weights / IMAGES)
    table = read_table(examples / EXAMPLES)
    tested = table.loc[_tested(table, recipe, (division,)), _IDENTITY]
    both = pd.concat([seen, tested], ignore_index=True)
    group = splits.groups(both)
    common = np.isin(group[len(seen) :], group[: len(seen)])
    if common.any():
        raise UserError(
            f"weights: {weights} was pretrained on relatives (the same patient or picture) of "
            f"{common.sum()} of {len(tested)} images that {recipe.name} is tested on, e.g. "
            f"{tested['id'][common].iloc[0]}. Pretrain with the same data, seed, split and subset as "
            f"it will be used with: `cxrflow pretrain {recipe.name} …`."
        )
