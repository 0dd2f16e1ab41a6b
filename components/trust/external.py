"""Radiographs from elsewhere (`--external`), which a candidate is asked about and was not made with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from components.data import splits
from components.data.facts import inspect
from components.data.relatives import IDENTITY, relatives
from components.data.sources import Row, is_of_view, listed
from components.data.sources.listed import Listed
from core.errors import UserError
from core.images import BadImage, content_of
from core.labels import COVID
from core.locations import reaching
from core.progress import Progress, logger
from training import intervals, saved_model
from training.preprocess import decoded
from training.recipes import Recipe

_BATCH = 16
_REASONS_SHOWN = 20
# The truth of an image whose finding is known and is none of the recipe's labels: no class has this name.
_NO_CLASS = ""


def measure(
    exported: saved_model.Exported,
    source: Listed,
    recipe: Recipe,
    seen: pd.DataFrame,
    internal: Mapping[str, Mapping[str, float | None]],
    views: Sequence[str] = (),
) -> dict[str, Any]:
    """Asks a model about radiographs from elsewhere.

    Images that a model has seen are left out: those that share the patient, the bytes or the picture with
    one it was made with (see `relatives.relatives`), whatever their name, size and format. So are files that
    cannot be used, and images whose finding is not known or that are of another view. Images from which the
    model abstains are answered neither right nor wrong: they are counted apart, and are in no other figure.

    Args:
      exported: the model.
      source: the radiographs.
      recipe: of the model.
      seen: the images that it was made with, with the columns of `relatives.IDENTITY`.
      internal: its recall of the test images that it answers, by class; see `intervals.rate`.
      views: the projections that it was trained on; see `listed.read`.

    Returns:
      `name`; `images` and `patients`, how many were asked about; `left_out`: numbers of images that were
      `seen`, `unlabelled`, `unreadable` and `of other views`; `unreadable`, the first of these: `path`
      and `reason`; `abstained`, a share of `images`, and `answered`, how many are left. Of the answered
      images: `others`, how many are without covid, and `called_covid`, the share of those that is called
      covid; by class `counts`, `recall`, and its `drop` (see `intervals.drop`) from the test split;
      `judged_patients`, how many unrelated patients (see `splits.groups`) the `others` and each class
      have; and `areas`, of each place that has both sides: `place`, `covid` and `others` (numbers of
      images), and `auc`, of covid against the rest (see `intervals.roc_auc`). A place is an image's
      `Row.origin`, or the whole source if it names none. Never of several places together: it could be
      the place that tells the sides apart. Intervals are over unrelated patients.
    """
    rows, gone = _rows(source)
    wanted = [row for row in rows if is_of_view(row.view, views)]
    labelled = [row for row in wanted if row.finding_is_known]
    asked, bad = _asked(exported, source, recipe, labelled)
    bad = gone + bad
    old = relatives(asked, seen)
    # Of one collection, too, copies of a picture have different patients' names.
    new = asked[~old].assign(group=lambda images: splits.groups(images).astype(str))
    left_out = {
        "seen": int(old.sum()),
        "unlabelled": len(wanted) - len(labelled),
        "unreadable": len(bad),
        "of other views": len(rows) - len(wanted),
    }
    if rows and any(left_out.values()):
        counts = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
        logger.warning("%s: of %d images left out: %s", source.name, len(rows), counts)
    answered = new[~new["abstained"]]
    others = answered[answered["truth"] != COVID]
    members = {
        name: answered[answered["truth"] == name]
        for name in recipe.classes
        if (answered["truth"] == name).any()
    }
    recall = {
        name: intervals.share(of["predicted"] == name, of["group"]) for name, of in members.items()
    }
    return {
        "name": source.name,
        "images": len(new),
        "patients": int(new["patient"].nunique()),
        "left_out": left_out,
        "unreadable": bad[:_REASONS_SHOWN],
        "abstained": intervals.share(new["abstained"], new["group"]),
        "answered": len(answered),
        "judged_patients": {
            "others": int(others["group"].nunique()),
            **{name: int(of["group"].nunique()) for name, of in members.items()},
        },
        "others": len(others),
        "called_covid": intervals.share(others["predicted"] == COVID, others["group"]),
        "counts": {name: len(of) for name, of in members.items()},
        "recall": recall,
        "drop": {name: intervals.drop(internal[name], rate) for name, rate in recall.items()},
        "areas": _areas(answered, source.name),
    }


def _rows(source: Listed) -> tuple[list[Row], list[dict[str, str]]]:
    """Returns the rows of a source; if it cannot be read, none, and why.

    It could be read when the run began. That it cannot now says nothing about the model, and must not cost
    what else the audit measures.
    """
    try:
        with reaching(source.place):
            return list(listed.read(source)), []
    except UserError as error:
        logger.warning("%s is left out: %s", source.name, error)
        return [], [{"path": str(source.place), "reason": str(error)}]


def _asked(
    exported: saved_model.Exported, source: Listed, recipe: Recipe, rows: Sequence[Row]
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Returns a row for each image with the model's answer, and the files that cannot be used."""
    identities, bad = [], []
    probabilities = [np.empty((0, len(recipe.classes)), np.float32)]
    scores = [np.empty(0, np.float32)]
    with Progress(f"images of {source.name} predicted", len(rows)) as progress:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            pixels = []
            for row in batch:
                try:
                    content = content_of(source.directory / row.path)
                    facts = inspect(content)
                    shown, _ = decoded(content)
                except BadImage as error:
                    bad.append({"path": row.path, "reason": str(error)})
                    logger.warning("%s: %s is left out: %s", source.name, row.path, error)
                    continue
                pixels.append(exported.preprocess(image_bytes=tf.constant(shown))["pixels"])
                identities.append(
                    {
                        "id": f"{row.source}/{row.path}",
                        "patient": row.patient,
                        "sha256": facts.sha256,
                        "perceptual_hash": facts.perceptual_hash,
                        "origin": row.origin,
                        "truth": recipe.task.get(row.label or "", _NO_CLASS),
                    }
                )
            if pixels:
                answer = exported.classify(pixels=tf.stack(pixels))
                probabilities.append(answer["probabilities"].numpy())
                scores.append(answer["ood_score"].numpy())
            progress.advance(len(batch))
    columns = [*IDENTITY, "origin", "truth"]
    shares = np.concatenate(probabilities)
    table = pd.DataFrame(identities, columns=columns).assign(
        predicted=np.array(recipe.classes)[shares.argmax(axis=1)],
        score=shares[:, recipe.classes.index(COVID)],
        abstained=np.concatenate(scores) > 1,
    )
    return table, bad


def _areas(answered: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    named = answered[answered["origin"] != ""]
    places = named.groupby("origin") if len(named) else [(name, answered)]
    areas = []
    for place, images in places:
        is_covid = images["truth"] == COVID
        if is_covid.any() and not is_covid.all():
            areas.append(
                {
                    "place": str(place),
                    "covid": int(is_covid.sum()),
                    "others": int((~is_covid).sum()),
                    "auc": intervals.roc_auc(is_covid, images["score"], images["group"]),
                }
            )
    return areas
