"""Step `evaluate`: measures a candidate on held-out images, through the signature that is served."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from components import pages
from components.data import splits
from components.pages import plots
from core.artifacts import (
    CARD,
    EVALUATION_PAGE,
    GALLERY,
    HISTORY,
    KNOWN_ANSWERS,
    METRICS,
    PREDICTIONS,
    SAVED_MODEL,
)
from core.divisions import division
from core.files import read_json, write_aside, write_json, write_text
from core.images import to_png
from core.labels import COVID
from core.progress import Progress, logger
from core.tables import read_table
from training import data, heat_maps, intervals, metrics, saved_model
from training.recipes import Recipe, recipe_named

_BATCH = 16
_EXAMPLES_PER_CLASS = 6
_KNOWN_ANSWERS_PER_CLASS = 2
_THUMBNAIL = 224


def evaluate(model: Path, records: Path, output: Path) -> dict[str, Any]:
    """Evaluates an exported model on the test part of its division, through its signature.

    The figures are those of the test split. Beside them are those of the validation split, by which the gate
    chooses among candidates that pass. The softmax temperature was fitted there, but that changes no
    prediction, because it keeps the order of the classes.

    Args:
      model: the output of `train`.
      records: the TFRecords.
      output: the directory to write, with `metrics.json`; `predictions.parquet`, a row for each image (see
        `training.saved_model.predictions`); `gallery.json`, some test images with their heat maps;
        `known_answers.json`, two test images of each class with the model's answers (see
        `serving.cluster.known_answers`); and `evaluation.html`. Written aside and renamed.

    Returns:
      the content of `metrics.json`: see `training.metrics.evaluate`, with `recipe`, `division`,
      `starting_point`, `quick` (see `Recipe`), `fingerprint` (of the test images' dataset); `answers`, of the
      test images: `abstained`, the share from which the server would abstain, and `classes`, the share that
      it would answer with each class; and `validation`: on the validation split the number of `images`,
      `covid_recall` (a rate, see `training.intervals.share`) and `macro_f1`; None if the division has no
      separate validation part.

    Raises:
      UserError: the records are incomplete, or a split lacks a class.
    """
    card = read_json(model / CARD)
    recipe = recipe_named(card["recipe"]["name"])
    manifest = data.read_manifest(records)
    parts = division(card["division"])
    for part in (parts.test, parts.validation):
        data.class_counts(manifest, recipe, part)  # refuses a part that lacks a class
    images = data.encoded_images(records, manifest, recipe, parts.test)
    exported = saved_model.load(model / SAVED_MODEL)
    identities = data.identities(records)
    shown = dict(zip(identities["id"], splits.people(identities), strict=True))
    predictions = _predicted(exported, images, recipe, shown)
    validation = None
    if parts.validation != parts.test:
        held_out = data.encoded_images(records, manifest, recipe, parts.validation)
        validation = _in_short(_figures(_predicted(exported, held_out, recipe, shown), recipe))
    figures = {
        **_figures(predictions, recipe),
        "answers": _answers(predictions, recipe),
        "validation": validation,
        "recipe": recipe.name,
        "division": card["division"],
        "starting_point": card["starting_point"],
        "transfer_learning": card["transfer_learning"],
        "fingerprint": manifest["fingerprint"],
        "phantoms": card["phantoms"] or manifest["phantoms"],
        "quick": recipe.quick,
    }
    curves = metrics.roc_curves(predictions, recipe.classes)
    gallery = _gallery(predictions, images, recipe, exported)
    page = pages.render(
        EVALUATION_PAGE,
        fingerprint=manifest["fingerprint"],
        phantoms=figures["phantoms"],
        quick=figures["quick"],
        card=card,
        metrics=figures,
        history=plots.history([pd.read_csv(model / HISTORY)]),
        roc=plots.roc({name: (x, y) for name, (x, y, _) in curves.items()}),
        gallery=gallery,
        colour_bar=heat_maps.colour_bar(),
    )
    with write_aside(output) as aside:
        write_json(aside / METRICS, figures)
        predictions.to_parquet(aside / PREDICTIONS, index=False)
        write_json(aside / GALLERY, gallery)
        write_json(aside / KNOWN_ANSWERS, _known_answers(predictions, images, recipe))
        write_text(aside / EVALUATION_PAGE, page)
    logger.info(
        "%s: on %d test images accuracy %s, recall %s",
        recipe.name,
        figures["images"],
        _in_words(figures["accuracy"]),
        ", ".join(f"{name} {_in_words(of['recall'])}" for name, of in figures["per_class"].items()),
    )
    return figures


def show(evaluation: Path, scalars: Any, curves: Any) -> None:
    """Shows an evaluation in the UI of Kubeflow Pipelines, as its own metrics and curves.

    Args:
      evaluation: the output of `evaluate`.
      scalars: a `kfp.dsl.Metrics`; gets accuracy, macro-F1, and four figures of each class in 0..1.
      curves: a `kfp.dsl.ClassificationMetrics`; gets the confusion matrix and the ROC curve of covid.
    """
    figures = read_json(evaluation / METRICS)
    scalars.log_metric("accuracy", figures["accuracy"]["value"])
    scalars.log_metric("macro_f1", figures["macro_f1"])
    for name, of_class in figures["per_class"].items():
        for figure in ("precision", "recall", "specificity", "f1"):
            if of_class[figure]["value"] is not None:
                scalars.log_metric(f"{name}_{figure}", of_class[figure]["value"])
    curves.log_confusion_matrix(figures["classes"], figures["confusion"])
    predictions = read_table(evaluation / PREDICTIONS)
    x, y, thresholds = metrics.roc_curves(predictions, tuple(figures["classes"]))[COVID]
    curves.log_roc_curve(x, y, thresholds)


def _predicted(
    exported: saved_model.Exported,
    images: tf.data.Dataset,
    recipe: Recipe,
    shown: Mapping[str, str],
) -> pd.DataFrame:
    """Returns predictions, see `saved_model.predictions`, with whom each image shows as `patient`."""
    predictions = saved_model.predictions(exported, images, recipe.classes)
    predictions.insert(1, "patient", predictions["id"].map(shown))
    return predictions


def _figures(predictions: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    probabilities = predictions[list(recipe.classes)].to_numpy()
    truth = np.array([recipe.classes.index(name) for name in predictions["truth"]])
    return metrics.evaluate(
        truth, probabilities, recipe.classes, predictions["patient"].to_numpy(str)
    )


def _answers(predictions: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    answered = predictions["predicted"].where(~predictions["abstained"])
    return {
        "abstained": float(predictions["abstained"].mean()),
        "classes": {name: float((answered == name).mean()) for name in recipe.classes},
    }


def _in_short(figures: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures by which candidates are chosen."""
    covid = figures["per_class"].get(COVID)
    return {
        "images": figures["images"],
        "covid_recall": covid["recall"] if covid else dict(intervals.NOTHING),
        "macro_f1": figures["macro_f1"],
    }


def _gallery(
    predictions: pd.DataFrame,
    images: tf.data.Dataset,
    recipe: Recipe,
    exported: saved_model.Exported,
) -> list[dict[str, Any]]:
    """Returns, for each class, the most confident errors and hits, half of each if there are enough.

    Returns:
      rows of `id`, `truth`, `predicted`, `confidence`, and as URIs `picture` and `overlay`, the
      picture below the heat map of the evidence for the predicted class.
    """
    parts = []
    for name in recipe.classes:
        members = predictions[predictions["truth"] == name].copy()
        members["confidence"] = members[list(recipe.classes)].max(axis=1)
        members = members.sort_values("confidence", ascending=False)
        wrong = members[members["predicted"] != name].head(_EXAMPLES_PER_CLASS // 2)
        right = members[members["predicted"] == name].head(_EXAMPLES_PER_CLASS - len(wrong))
        parts += [wrong, right]
    chosen = pd.concat(parts)[["id", "truth", "predicted", "confidence"]]
    ordered = _contents(images, list(chosen["id"]))
    explained = []
    with Progress("answers explained", len(ordered)) as progress:
        for pixels in _batches(exported.preprocess, ordered):
            positions = tf.fill([len(pixels)], -1)
            answers = exported.explain(pixels=tf.stack(pixels), positions=positions)
            explained.append(answers["heat_maps"].numpy())
            progress.advance(len(pixels))
    maps = np.concatenate(explained)
    rows: list[dict[str, Any]] = []
    for row, content, heat_map in zip(chosen.to_dict("records"), ordered, maps, strict=True):
        with Image.open(io.BytesIO(to_png(content))) as picture:
            picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
            overlay = heat_maps.overlay(picture, heat_map)
            rows.append(
                {
                    **{str(key): value for key, value in row.items()},
                    "picture": pages.image_uri(picture),
                    "overlay": pages.image_uri(overlay),
                }
            )
    return rows


def _known_answers(
    predictions: pd.DataFrame, images: tf.data.Dataset, recipe: Recipe
) -> list[dict[str, Any]]:
    chosen = predictions.groupby("truth").head(_KNOWN_ANSWERS_PER_CLASS)
    contents = _contents(images, list(chosen["id"]))
    return [
        {
            "id": row["id"],
            "image": base64.b64encode(content).decode(),
            "probabilities": {name: float(row[name]) for name in recipe.classes},
        }
        for row, content in zip(chosen.to_dict("records"), contents, strict=True)
    ]


def _contents(images: tf.data.Dataset, ids: list[str]) -> list[bytes]:
    by_id = {
        identity.decode(): content
        for content, _, identity in images.as_numpy_iterator()
        if identity.decode() in set(ids)
    }
    return [by_id[identity] for identity in ids]


def _batches(preprocess: Callable[..., Any], contents: list[bytes]) -> Iterator[list[tf.Tensor]]:
    for i in range(0, len(contents), _BATCH):
        yield [
            preprocess(image_bytes=tf.constant(content))["pixels"]
            for content in contents[i : i + _BATCH]
        ]


def _in_words(rate: dict[str, float | None]) -> str:
    return "–" if rate["value"] is None else f"{100 * rate['value']:.1f} %"
