"""Trains one candidate: from TFRecords to an exported model with a card that states its origin."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from components.candidates import pretrain
from components.candidates.made_with import EARLIER, PRETRAINED, made_with
from components.data.relatives import IDENTITY
from components.data.sources import covid_chestxray, kermany
from core import divisions
from core.artifacts import CARD, EXAMPLES, HISTORY, MADE_WITH, SAVED_MODEL, SEGMENTER_CARD
from core.files import read_json, write_aside, write_json
from core.progress import logger
from core.tables import read_table
from serving import store
from training import (
    architectures,
    calibration,
    data,
    export,
    loop,
    ood,
    saved_model,
    start_weights,
    workers,
)
from training.lungs import load as load_segmenter
from training.precision import AUTO
from training.recipes import Recipe

# Of the training split: covariances need no more, and memory must not grow with the dataset.
_ENOUGH = 4096
# Of each class, even a rare one: a class without an image has no mean.
_ENOUGH_OF_A_CLASS = 64


def train(
    recipe: Recipe,
    records: Path,
    output: Path,
    checkpoints: Path,
    *,
    weights: str = start_weights.IMAGENET,
    seed: int = 0,
    precision: str = AUTO,
    division: str = divisions.HOLD_OUT,
    examples: Path | None = None,
    start: Path | None = None,
    lungs: Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains a recipe and exports it.

    Args:
      recipe, records, checkpoints, weights, seed, precision, division: see `training.loop.train`.
      output: the directory to write, with `saved_model/` (see `training.export`), `model.json`,
        `history.csv` and `tensorboard/`, and given `examples` the images that it was made with,
        `images.parquet` (`relatives.IDENTITY` and `part`; those of its base and of the version it continues
        from as well). Written aside and renamed.
      examples: the output of `ingest`, to check that a base of `pretrain` has not seen test images.
      start: a version of the model store. If it is of this recipe, and the base is not frozen, training
        continues from its weights, instead of `weights`.
      lungs: the output of `find_lungs`, for a recipe that needs it; see `Recipe.needs_lungs`.
      strategy: see `training.loop.train`.

    Returns:
      the content of `model.json`: the recipe, the division, where training started, the data's
      fingerprint, whether they are phantoms, sources besides the two published ones, counts, the
      network's layers, the softmax's temperature, the card of the lung segmenter if the model has one,
      seed, precision, replicas, releases of the packages, the time it took, and a digest of the weights
      (see `saved_model.digest_of_weights`), so that later steps need not read them. Of several machines, the
      first one exports the model; on the others the card is empty.

    Raises:
      UserError: see `training.loop.train`; or the base has seen test images, or `examples` are missing,
        which are needed to check that.
    """
    manifest = data.read_manifest(records)
    before = _continued(start, recipe) if start else None
    from_base = recipe.pretrained and not before
    base = start_weights.pretrained_directory(recipe, weights) if from_base else None
    segmenter = load_segmenter(lungs) if lungs and recipe.needs_lungs else None
    if base:
        pretrain.require_unseen(base, examples, recipe, division)
    trained = loop.train(
        recipe,
        records,
        checkpoints,
        weights=weights,
        seed=seed,
        precision=precision,
        division=division,
        start=start if before else None,
        segmenter=segmenter,
        strategy=strategy,
    )
    if not workers.leads(strategy):
        return {}
    parts = divisions.division(division)
    temperature, known = _what_it_knows(trained, recipe, parts, manifest)
    # Mixing surroundings needs one in training alone.
    shown_by = segmenter if recipe.view == "lungs" else None
    card: dict[str, Any] = {
        "recipe": {**dataclasses.asdict(recipe), "classes": list(recipe.classes)},
        "division": division,
        "weights": weights if recipe.pretrained else start_weights.NONE,
        "starting_point": (
            f"from version {before['version']}, which started {before['starting_point']}"
            if before
            else architectures.starting_point(recipe, weights)
        ),
        "transfer_learning": (
            before["transfer_learning"]
            if before
            else recipe.pretrained and weights != start_weights.NONE
        ),
        "parent": before and before["version"],
        "fingerprint": manifest["fingerprint"],
        "span": manifest["span"],
        "phantoms": manifest["phantoms"],
        "further_sources": [
            name
            for name in manifest["splits"][parts.train[0]]["sources"]
            if name not in (covid_chestxray.NAME, kermany.NAME)
        ],
        "training_images": data.class_counts(manifest, recipe, parts.train),
        "parameters": trained.model.count_params(),
        "layers": architectures.layer_table(trained.model, recipe),
        "temperature": temperature,
        "lungs": lungs and shown_by and read_json(lungs / SEGMENTER_CARD),
        "seed": seed,
        "precision": trained.policy,
        "replicas": trained.replicas,
        "batch": trained.batch,
        "learning_rate": trained.learning_rate,
        "versions": export.versions(),
        "seconds": round(float(trained.history["seconds"].sum()), 1),
    }
    with write_aside(output) as aside:
        export.export(
            trained.model,
            recipe,
            aside / SAVED_MODEL,
            temperature=temperature,
            segmenter=shown_by,
            known=known,
        )
        card["weights_digest"] = saved_model.digest_of_weights(aside / SAVED_MODEL)
        write_json(aside / CARD, card)
        trained.history.to_csv(aside / HISTORY, index=False)
        shutil.copytree(trained.logs / loop.TENSORBOARD, aside / loop.TENSORBOARD)
        if examples:
            earlier = {EARLIER: start if before else None, PRETRAINED: base}
            table = _made_with(examples, recipe, parts, earlier)
            table.to_parquet(aside / MADE_WITH, index=False)
    last = trained.history.iloc[-1]
    logger.info(
        "%s: trained in %.0f s, validation accuracy %.3f",
        recipe.name,
        card["seconds"],
        last["val_accuracy"],
    )
    return card


def _continued(version: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Returns the card of a version and its number, or None if the recipe cannot continue from it."""
    card = read_json(version / CARD)
    theirs = card["recipe"]
    same = theirs["name"] == recipe.name and theirs["classes"] == list(recipe.classes)
    if recipe.frozen or not same or theirs["input_size"] != list(recipe.input_size):
        return None  # the head of a frozen base is trained quickly
    return {**card, "version": store.verified(version)["version"]}


def _what_it_knows(
    trained: loop.Trained,
    recipe: Recipe,
    parts: divisions.Division,
    manifest: Mapping[str, Any],
) -> tuple[float, ood.Known | None]:
    """Returns the temperature of the exported softmax, and what separates known images from unknown ones.

    Both are fitted to validation images. If the division has none besides its test images, as in the papers'
    protocols, whose models are not deployed, they are 1 and None.
    """
    if parts.validation == parts.test:
        return 1.0, None

    answers = loop.answerer(trained, recipe)

    def sample(of: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts = list(data.class_counts(manifest, recipe, of).values())
        of_each = data.share_of_each(counts, _ENOUGH, _ENOUGH_OF_A_CLASS)
        return answers(of, of_each)

    learnt, _, truth = sample(parts.train)
    judged, probabilities, theirs = sample(parts.validation)
    temperature = calibration.fitted_temperature(probabilities, theirs)
    return round(temperature, 4), ood.fitted(learnt, truth, judged)


def _made_with(
    examples: Path, recipe: Recipe, parts: divisions.Division, earlier: Mapping[str, Path | None]
) -> pd.DataFrame:
    table = read_table(examples / EXAMPLES, columns=[*IDENTITY, "label", "split"])
    seen = table["split"].isin([*parts.train, *parts.validation])
    ours = table[seen & table["label"].isin(list(recipe.task))]
    tables = [ours[[*IDENTITY, "split"]].rename(columns={"split": "part"})]
    for part, weights in earlier.items():
        if weights:
            tables.append(made_with(weights, table).assign(part=part))
    # The weights remember images that are in the data no more.
    return pd.concat(tables).drop_duplicates("id", ignore_index=True)
