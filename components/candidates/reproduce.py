"""Step `reproduce`: shows our figures beside the published ones, and what differs, on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from components import pages
from components.data import splits
from components.pages import plots
from core.artifacts import (
    CARD,
    EXAMPLES,
    GALLERY,
    HISTORY,
    METRICS,
    PREDICTIONS,
    REPRODUCTION,
    REPRODUCTION_PAGE,
    SUMMARY,
)
from core.files import read_json, write_aside, write_json, write_text
from core.labels import LABELS
from core.progress import Progress, logger
from core.tables import read_table
from training import heat_maps, metrics
from training.recipes import Recipe, recipe_named
from training.start_weights import IMAGENET

_EXAMPLES_PER_CLASS = 3


def reproduce(
    examples: Path, models: Sequence[Path], evaluations: Sequence[Path], output: Path
) -> dict[str, Any]:
    """Summarises the trainings of a protocol.

    Args:
      examples: the output of `ingest`.
      models: the outputs of `train`: one for each recipe, or for each fold.
      evaluations: the outputs of `evaluate`, in the order of `models`.
      output: the directory to write, with `reproduction.json` and `reproduction.html`. Written aside
        and renamed.

    Returns:
      the content of `reproduction.json`: `data` (images, patients, leakage, fingerprint, …) and `recipes`,
      for each its name, what differs from the paper, where training started, images, patients,
      seconds, `metrics` over all test images (see `training.metrics.evaluate`; the confusion matrix
      is the sum of the folds'), the same of each fold with its `history` by epoch (see
      `training.loop.Trained`), and `compared`: every published figure with ours.
    """
    summary = read_json(examples / SUMMARY)
    table = read_table(examples / EXAMPLES, columns=["label", "patient"])
    cards = [read_json(model / CARD) for model in models]
    names = list(dict.fromkeys(card["recipe"]["name"] for card in cards))
    results, shown = [], []
    with Progress("trainings summarised", len(models)) as progress:
        for name in names:
            members = sorted(
                (card["division"], i)
                for i, card in enumerate(cards)
                if card["recipe"]["name"] == name
            )
            of_recipe = [i for _, i in members]
            result, drawings = _of_recipe(
                recipe_named(name),
                [cards[i] for i in of_recipe],
                [models[i] for i in of_recipe],
                [evaluations[i] for i in of_recipe],
                table,
                summary,
            )
            results.append(result)
            shown.append(drawings)
            progress.advance(len(of_recipe))
    described = {
        "data": {key: summary[key] for key in _DATA_SHOWN},
        "recipes": results,
        "versions": cards[0]["versions"],
    }
    page = pages.render(
        REPRODUCTION_PAGE,
        fingerprint=summary["fingerprint"],
        phantoms=summary["phantoms"],
        labels=LABELS,
        summary=summary,
        results=list(zip(results, shown, strict=True)),
        common=[
            difference
            for difference in results[0]["differences"]
            if all(difference in result["differences"] for result in results)
        ],
        versions=cards[0]["versions"],
        colour_bar=heat_maps.colour_bar(),
    )
    with write_aside(output) as aside:
        aside.mkdir()
        write_json(aside / REPRODUCTION, described)
        write_text(aside / REPRODUCTION_PAGE, page)
    for result in results:
        logger.info(
            "%s: accuracy %.1f %% of %d test images, %s",
            result["recipe"],
            100 * result["metrics"]["accuracy"]["value"],
            result["metrics"]["images"],
            result["starting_point"],
        )
    return described


_DATA_SHOWN = (
    "used", "patients", "by_source", "fingerprint", "folds", "split_by", "leakage", "phantoms", "seed",
    "subset",
)  # fmt: skip


def _of_recipe(
    recipe: Recipe,
    cards: list[dict[str, Any]],
    models: Sequence[Path],
    evaluations: Sequence[Path],
    table: pd.DataFrame,
    summary: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a recipe's result, and the drawings for the page."""
    folds = [read_json(evaluation / METRICS) for evaluation in evaluations]
    predictions = pd.concat([read_table(evaluation / PREDICTIONS) for evaluation in evaluations])
    truth = predictions["truth"].map(recipe.classes.index).to_numpy()
    figures = metrics.evaluate(
        truth,
        predictions[list(recipe.classes)].to_numpy(),
        recipe.classes,
        predictions["patient"].to_numpy(str),
    )
    histories = [pd.read_csv(model / HISTORY) for model in models]
    figures["validation_accuracy"] = float(
        sum(history["val_accuracy"].iloc[-1] for history in histories) / len(histories)
    )
    members = table[table["label"].isin(list(recipe.task))]
    result = {
        "recipe": recipe.name,
        "paper": recipe.paper,
        "starting_point": cards[0]["starting_point"],
        "differences": _differences(recipe, cards[0], members, summary),
        "images": len(members),
        "patients": int(members["patient"].nunique()),
        "counts": {
            name: int(members["label"].map(recipe.task).eq(name).sum()) for name in recipe.classes
        },
        "epochs": cards[0]["recipe"]["epochs"],
        "precision": cards[0]["precision"],
        "seconds": sum(card["seconds"] for card in cards),
        "parameters": cards[0]["parameters"],
        "metrics": figures,
        "folds": [
            {**fold, "seconds": card["seconds"], "history": history.to_dict("list")}
            for fold, card, history in zip(folds, cards, histories, strict=True)
        ],
        "compared": _compared(recipe, figures),
    }
    curves = metrics.roc_curves(predictions, recipe.classes)
    drawings = {
        "card": cards[0],
        "history": plots.history(histories),
        "roc": plots.roc({name: (x, y) for name, (x, y, _) in curves.items()}),
        "gallery": _some(evaluations, recipe),
    }
    return result, drawings


def _differences(
    recipe: Recipe, card: dict[str, Any], members: pd.DataFrame, summary: dict[str, Any]
) -> list[str]:
    """Returns how this reproduction differs from the paper, in sentences."""
    said = []
    if recipe.pretrained and card["weights"] != IMAGENET:
        said.append(f"Training started {card['starting_point']}.")
    trained, published = card["recipe"]["epochs"], recipe.epochs
    if trained != published:
        said.append(f"{trained} epochs; the paper has {published}.")
    leak = summary["leakage"]
    if summary["split_by"] != splits.RANDOM:
        place = "" if summary["split_by"] == splits.PATIENT else ", no site or publication"
        said.append(
            f"No patient{place} and no picture is in both training and test. The paper split at random: "
            f"here, that would put relatives of at least {leak['random']} of {leak['test'][1]} test "
            "images, of all labels, into training."
        )
    else:
        said.append(
            f"Split at random, as in the paper: at least {leak['ours']} of {leak['test'][0]} test images, "
            "of all labels, have their patient or picture in training, so the figures are too good."
        )
    counts = members["label"].map(recipe.task).value_counts()
    used = ", ".join(f"{counts[name]} {name}" for name in recipe.classes)
    wanted = ", ".join(f"{count} {name}" for name, count in recipe.subset.items())
    short = any(counts[name] < count for name, count in recipe.subset.items())
    if not summary["subset"]:
        said.append(f"All usable images: {used}{f'; the paper had {wanted}' if wanted else ''}.")
    elif short:
        said.append(f"There are fewer images than in the paper: {used} of {wanted}.")
    if recipe.ours:
        said.append(f"Chosen here, because the paper does not say: {recipe.ours}.")
    said.append(
        "In training, and in its curves, all classes have the same weight, however many images they have."
    )
    return said


def _compared(recipe: Recipe, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each published figure: `figure`, `ours` (a rate) and `published`, one per source."""
    wanted = dict.fromkeys(name for published in recipe.published for name in published.figures)
    rows = []
    for name in wanted:
        ours = _figure(name, figures)
        if ours is not None:
            said = [published.figures.get(name) for published in recipe.published]
            rows.append({"figure": name, "ours": ours, "published": said})
    return rows


def _figure(name: str, figures: dict[str, Any]) -> dict[str, float | None] | None:
    if name == "accuracy":
        return dict(figures["accuracy"])
    if name == "validation accuracy":
        return {"value": figures["validation_accuracy"], "low": None, "high": None}
    of_class, _, metric = name.rpartition(" ")
    if of_class not in figures["per_class"]:  # COVID-Net has other classes
        return None
    return dict(figures["per_class"][of_class][metric])


def _some(evaluations: Sequence[Path], recipe: Recipe) -> list[dict[str, Any]]:
    """Returns a few test images of each class, over all folds."""
    every = [row for path in evaluations for row in read_json(path / GALLERY)]
    chosen = []
    for name in recipe.classes:
        members = [row for row in every if row["truth"] == name]
        right = [row for row in members if row["predicted"] == name]
        wrong = [row for row in members if row["predicted"] != name]
        chosen += [*right[: _EXAMPLES_PER_CLASS - 1], *wrong][:_EXAMPLES_PER_CLASS]
    return chosen
