"""Step `audit`: measures whether a candidate decides by the lungs, or by what tells its sources apart.

Covid comes from one source and nearly everything else from another, of children. So a model can be right for
wrong reasons (DeGrave, Janizek, Lee: "AI for radiographic COVID-19 detection selects shortcuts over
signal", Nature Machine Intelligence 2021). The audit only asks the candidate, and trains nothing. The verdict
follows from its measurements; see `components.trust.rules`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from components import pages
from components.candidates.made_with import made_with, related
from components.data import splits
from components.data.sources.listed import Listed
from components.pages import plots
from components.trust import external as elsewhere
from components.trust import like_with_like, probes, rules, swaps
from components.trust.rules import View
from core.artifacts import (
    AUDIT,
    AUDIT_PAGE,
    CARD,
    EXAMPLES,
    MADE_WITH,
    SAVED_MODEL,
    SEGMENTER_CARD,
    SUMMARY,
    Verdict,
)
from core.divisions import division
from core.errors import UserError
from core.files import read_json, write_aside, write_json, write_text
from core.labels import COVID
from core.progress import Progress, logger
from core.tables import read_table
from serving import verdict
from training import (
    architectures,
    calibration,
    data,
    export,
    heat_maps,
    intervals,
    lungs,
    ood,
    saved_model,
    start_weights,
    surroundings,
)
from training.preprocess import to_input
from training.recipes import Recipe, recipe_named

_BATCH = 16
_FEWEST_IN_SUBGROUP = 20
_SWAPS_SHOWN = 4
_PICTURE = 200
# The side at which whole images are changed before a candidate crops them to the lungs.
_GIVEN = 320
_AGES = (0, 18, 40, 65, 200)
_AGE_NAMES = ("under 18 years", "18 to 39 years", "40 to 64 years", "65 years and over")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Test images, and a candidate's answers about them; each array has a row for each image.

    Attributes:
      ids: of the images, str [N].
      truth: positions of their classes, int [N].
      ood_score: float32 [N]; see `training.ood`.
      area: share of the image that is lungs, float [N] in 0..1.
      inside: share of the heat map's mass in the lungs, float [N] in 0..1; NaN where the map is empty.
      views: by view, probabilities float32 [N, classes].
    """

    ids: np.ndarray
    truth: np.ndarray
    ood_score: np.ndarray
    area: np.ndarray
    inside: np.ndarray
    views: Mapping[View, np.ndarray]

    @property
    def probabilities(self) -> np.ndarray:
        """Those of the whole images."""
        return self.views[View.WHOLE]


def _joined(batches: Sequence[_Seen]) -> _Seen:
    arrays = {
        field.name: np.concatenate([getattr(batch, field.name) for batch in batches])
        for field in fields(_Seen)
        if field.name != "views"
    }
    views = {
        view: np.concatenate([batch.views[view] for batch in batches]) for view in batches[0].views
    }
    return _Seen(**arrays, views=views)


def audit(
    model: Path,
    records: Path,
    examples: Path,
    segmenter: Path,
    output: Path,
    *,
    external: Mapping[str, Listed] | None = None,
    views: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures what a candidate's answers on the test split are based on.

    Args:
      model: the output of `train`; or a version of the model store: then the images that it was made with
        are left out, and their relatives (see `relatives.relatives`).
      records: the TFRecords.
      examples: the output of `ingest`.
      segmenter: the output of `find_lungs`.
      output: the directory to write, with `audit.json` and `audit.html`. Written aside and renamed.
      external: radiographs that the candidate was not trained on, by name.
      views: the projections that it was trained on, which alone count in `external`; empty for all.

    Returns:
      the content of `audit.json`:
      `views`: by `rules.View`, `accuracy`, `balanced` (the mean recall of the classes that have images) and
        `recall` by class, with intervals: of the candidate when it is given the whole image, the image with
        blanked lungs, and the lungs alone.
      `lung_free_explained`: the share of its balanced accuracy above chance that is left when the lungs are
        blanked; None if the candidate is hardly above chance, or only one class has images. `chance` is that
        of the classes that have images.
      `swaps`: see `swaps.followed`.
      `like_with_like`: see `like_with_like.like_with_like`; `adults`: see `like_with_like.alarms_of_adults`.
      `attribution`: by class and `all`, the share of Grad-CAM's mass in the lungs (`inside`), the share of
        the image that is lungs (`area`), and their ratio (`focus`); None if there are no lungs or all maps
        are empty.
      `probes`: what its features tell of the source and the age; see `probes.probes`.
      `subgroups`: rows of `group`, `images`, `accuracy`, `recall` of covid, and how many images (`covid`)
        and patients (`covid_patients`) have it; `lowest_subgroup`: the row with the lowest recall among those
        with at least 20 such patients; or None.
      `calibration`: see `calibration.reliability`; with `temperature`.
      `abstention`: on the test split, the share that is `rejected` as unlike the training images, the
        `recall` of the others by class, and how many answers are wrong if only some are given (see
        `ood.risk_coverage`), by `ood_score` and by `confidence`.
      `external`: a row for each source; see `external.measure`.
      `leaks`: test images whose patient or picture is in training, that of what a candidate continued from
      included; None for a version that does not say what it was made with; `leakage` (see `splits.Leakage`);
      `lungs`: the card of `find_lungs`, and in how many images lungs were `not_found`.
      `related`: how many test images were left out; `rules`: see `rules.judged`; `trust`: see
        `rules.verdict`; `recipe`, `view`, `images`, `fingerprint`, `phantoms`.

    Raises:
      UserError: the records are incomplete, or no test image is left.
    """
    manifest, everyone = data.read_manifest(records), read_table(examples / EXAMPLES)
    candidate = _candidate(model, everyone)
    recipe = candidate.recipe
    finder = lungs.load(segmenter)
    seen, pictures = _look(candidate, records, manifest, everyone, finder)
    table = everyone.set_index("id").loc[seen.ids].reset_index()
    table["truth"] = [recipe.classes[i] for i in seen.truth]
    table["predicted"] = [recipe.classes[i] for i in seen.probabilities.argmax(axis=1)]
    table["patient"] = splits.people(table)

    measured = {**_identity(candidate, manifest), **_measured(seen, table, recipe.classes)}
    measured["swaps"], shown = _swapped(candidate, records, manifest, table, seen, finder)
    measured["probes"] = _revealed(candidate, records, manifest, table)
    measured["calibration"]["temperature"] = candidate.card["temperature"]
    measured["lungs"] |= read_json(segmenter / SEGMENTER_CARD)
    summary = read_json(examples / SUMMARY)
    leakage = splits.leakage(everyone, summary["seed"], folds=summary["folds"])
    measured |= {"leaks": _leaks(candidate, leakage.ours), "leakage": vars(leakage)}
    # Elsewhere, too, only answered images count.
    inside = measured["abstention"]["recall"]
    parts = division(candidate.card["division"])
    made = made_with(model, everyone)
    if made.empty:
        made = everyone[everyone["split"].isin([*parts.train, *parts.validation])]
    measured["related"] = len(candidate.left_out)
    measured["external"] = [
        elsewhere.measure(candidate.exported, source, recipe, made, inside, views)
        for source in (external or {}).values()
    ]
    measured["rules"] = rules.judged(measured)
    measured["trust"] = rules.verdict(measured["rules"])
    page = _page(measured, recipe, pictures, shown)
    with write_aside(output) as aside:
        aside.mkdir()
        write_json(aside / AUDIT, measured)
        write_text(aside / AUDIT_PAGE, page)
    _say(measured)
    return measured


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A model to audit.

    Attributes:
      recipe: as it was trained.
      card: see `train`.
      saved: the SavedModel's directory.
      exported: that model.
      related: ids of test images that it was made with, or with a relative; None if it does not say what it
        was made with.
      is_version: whether it is a version of the model store.
    """

    recipe: Recipe
    card: Mapping[str, Any]
    saved: Path
    exported: saved_model.Exported
    related: Sequence[str] | None
    is_version: bool

    @property
    def left_out(self) -> Sequence[str]:
        """Ids of test images that say nothing of a version. Those of a candidate are counted as leaks."""
        return (self.is_version and self.related) or ()


def _candidate(model: Path, everyone: pd.DataFrame) -> _Candidate:
    card = read_json(model / CARD)
    is_version = not (model / SAVED_MODEL).is_dir()
    saved = model if is_version else model / SAVED_MODEL
    tested = everyone[everyone["split"].isin(division(card["division"]).test)]
    says = (model / MADE_WITH).is_file()
    return _Candidate(
        recipe=replace(
            recipe_named(card["recipe"]["name"]),
            epochs=card["recipe"]["epochs"],
            input_size=tuple(card["recipe"]["input_size"]),
        ),
        card=card,
        saved=saved,
        exported=saved_model.load(saved),
        related=tested["id"][related(tested, model, everyone)].to_list() if says else None,
        is_version=is_version,
    )


def _leaks(candidate: _Candidate, of_split: int) -> int | None:
    """Returns how many test images a model has seen, or relatives of them.

    The split alone does not tell it: a training may continue from a version of another archive.
    """
    if candidate.is_version:
        return None if candidate.related is None else of_split
    return max(of_split, len(candidate.related or ()))


def _identity(candidate: _Candidate, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "recipe": candidate.recipe.name,
        "division": candidate.card["division"],
        "starting_point": candidate.card["starting_point"],
        "view": candidate.recipe.view,
        "fingerprint": manifest["fingerprint"],
        "phantoms": candidate.card["phantoms"] or manifest["phantoms"],
    }


def _measured(seen: _Seen, table: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Returns what follows from the candidate's answers about the test images; see `audit`."""
    named = np.array(classes)
    views = {
        view: _figures(table.assign(predicted=named[shares.argmax(axis=1)]), classes)
        for view, shares in seen.views.items()
    }
    chance = _chance(views[View.WHOLE])
    groups = _subgroups(table)
    return {
        "images": len(seen.truth),
        "views": views,
        "chance": chance,
        "lung_free_explained": _explained(
            views[View.LUNG_FREE]["balanced"], views[View.WHOLE]["balanced"], chance
        ),
        "like_with_like": like_with_like.like_with_like(
            table, seen.probabilities[:, classes.index(COVID)]
        ),
        "adults": like_with_like.alarms_of_adults(table),
        "attribution": _attribution(seen, classes),
        "subgroups": groups,
        "lowest_subgroup": _lowest(groups),
        "calibration": calibration.reliability(seen.probabilities, seen.truth),
        "abstention": _abstention(seen.ood_score, seen.probabilities, table, classes),
        "lungs": {"not_found": int((~lungs.are_found(seen.area)).sum())},
    }


def _page(
    measured: Mapping[str, Any],
    recipe: Recipe,
    pictures: Sequence[Mapping[str, Any]],
    swapped: Sequence[Mapping[str, Any]],
) -> str:
    abstention = measured["abstention"]
    return pages.render(
        AUDIT_PAGE,
        fingerprint=measured["fingerprint"],
        phantoms=measured["phantoms"],
        quick=recipe.quick,
        audit=measured,
        classes=recipe.classes,
        levels=plots.levels(
            {view: figures["balanced"] for view, figures in measured["views"].items()},
            measured["chance"],
        ),
        reliability=plots.reliability(measured["calibration"]["bins"]),
        risk=plots.risk_coverage(
            {
                "out-of-distribution score": abstention["ood_score"],
                "confidence": abstention["confidence"],
            }
        ),
        pictures=pictures,
        swapped=swapped,
        colour_bar=heat_maps.colour_bar(),
    )


def _say(measured: Mapping[str, Any]) -> None:
    trust = measured["trust"]
    say = logger.info if trust["verdict"] == Verdict.TRUSTED else logger.warning
    say("%s is %s", measured["recipe"], verdict.in_words(trust))


def blanked(pixels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns images in which the pixels in a mask are set to the mean of the others.

    Args:
      pixels: float32 [N, height, width, 1] in 0..255.
      mask: float32 of the same shape, or [1, height, width, 1]; 1 where the image is blanked.
    """
    axes = (1, 2, 3)
    rest = 1 - tf.broadcast_to(mask, tf.shape(pixels))
    mean = tf.math.divide_no_nan(
        tf.reduce_sum(pixels * rest, axes, keepdims=True), tf.reduce_sum(rest, axes, keepdims=True)
    )
    return pixels * rest + mean * (1 - rest)


def shown_otherwise(pixels: tf.Tensor, lung_mask: tf.Tensor) -> dict[View, tf.Tensor]:
    """Returns images as the audit shows them to a model.

    Args:
      pixels: float32 [N, height, width, 1] in 0..255.
      lung_mask: where the lungs are; see `lungs.find`.

    Returns:
      by view, images of the same shape. Lungs are blanked with a margin, so that their outline is gone, too.
    """
    swollen = surroundings.swollen(lung_mask)
    return {
        View.WHOLE: pixels,
        View.LUNG_FREE: blanked(pixels, swollen),
        View.LUNGS_ALONE: blanked(pixels, 1 - swollen),
    }


def _look(
    candidate: _Candidate,
    records: Path,
    manifest: Mapping[str, Any],
    everyone: pd.DataFrame,
    segmenter: keras.Model,
) -> tuple[_Seen, list[dict[str, Any]]]:
    """Shows the candidate in every view all test images but those that it was made with.

    Returns:
      the images with the candidate's answers; and for the page the first image of each class in each view.

    Raises:
      UserError: there is no image.
    """
    recipe, exported = candidate.recipe, candidate.exported
    tested = division(candidate.card["division"]).test
    images = data.without(
        data.encoded_images(records, manifest, recipe, tested), candidate.left_out
    )
    to_show = everyone["split"].isin(tested) & everyone["label"].isin(list(recipe.task))
    count = int((to_show & ~everyone["id"].isin(candidate.left_out)).sum())
    batches: list[_Seen] = []
    pictures: dict[int, dict[str, Any]] = {}
    with Progress("test images looked at", count) as progress:
        for contents, truth, identity in images.batch(_BATCH):
            pictured, shown, lung_mask = _shown(exported, contents, recipe, segmenter)
            seen, heat = _answers(exported, shown, lung_mask, truth.numpy(), identity.numpy())
            batches.append(seen)
            progress.advance(len(seen.ids))
            for row, position in enumerate(seen.truth):
                if position not in pictures and lungs.are_found(seen.area[row]):
                    heat_map = heat_maps.overlay(_image(shown[View.WHOLE][row]), heat[row])
                    pictures[position] = {
                        "truth": recipe.classes[position],
                        "views": _pictures(pictured, seen, row, recipe.classes),
                        "heat_map": pages.image_uri(heat_map),
                    }
    if not batches:
        raise UserError(
            "audit: the version was made with every image of the test split, or with an image of the same "
            "patient or picture; give data that has others"
        )
    return _joined(batches), [pictures[position] for position in sorted(pictures)]


def _pictures(
    pictured: Mapping[View, tf.Tensor], seen: _Seen, row: int, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns an image in every view, with the candidate's answer about it."""
    return [
        {
            "name": view,
            "picture": pages.image_uri(_image(pixels[row])),
            "predicted": classes[int(seen.views[view][row].argmax())],
            "share": float(seen.views[view][row].max()),
        }
        for view, pixels in pictured.items()
    ]


def _answers(
    exported: saved_model.Exported,
    shown: Mapping[View, tf.Tensor],
    lung_mask: tf.Tensor,
    truth: np.ndarray,
    identity: np.ndarray,
) -> tuple[_Seen, np.ndarray]:
    """Returns the candidate's answers about a batch, and its heat maps of the whole images."""
    pixels = shown[View.WHOLE]
    answers = {view: exported.classify(pixels=images) for view, images in shown.items()}
    explained = exported.explain(pixels=pixels, positions=tf.fill([len(pixels)], -1))
    heat = explained["heat_maps"].numpy()
    fitted = np.stack([heat_maps.fitted(heat_map, pixels.shape[1:3]) for heat_map in heat])
    mask = lung_mask.numpy()[..., 0]
    mass = fitted.sum(axis=(1, 2))
    seen = _Seen(
        ids=np.array([name.decode() for name in identity]),
        truth=truth,
        ood_score=answers[View.WHOLE]["ood_score"].numpy(),
        area=mask.mean(axis=(1, 2)),
        inside=np.divide(
            (fitted * mask).sum(axis=(1, 2)), mass, out=np.full(len(mass), np.nan), where=mass > 0
        ),
        views={view: answer["probabilities"].numpy() for view, answer in answers.items()},
    )
    return seen, heat


def _shown(
    exported: saved_model.Exported, contents: tf.Tensor, recipe: Recipe, segmenter: keras.Model
) -> tuple[dict[View, tf.Tensor], dict[View, tf.Tensor], tf.Tensor]:
    """Returns by view the images as pictures and as the candidate's inputs, and the inputs' lung masks.

    A candidate that is shown the lungs alone gets every view as a whole image, as from a client.
    """
    if recipe.view == "full":
        pixels = tf.stack([exported.preprocess(image_bytes=image)["pixels"] for image in contents])
        lung_mask = lungs.find(segmenter, pixels)
        views = shown_otherwise(pixels, lung_mask)
        return views, views, lung_mask
    whole = tf.stack([to_input(image, (_GIVEN, _GIVEN)) for image in contents])
    views = shown_otherwise(whole, lungs.find(segmenter, whole))
    encoded = {view: [_png(image) for image in images] for view, images in views.items()}
    shown = {
        view: tf.stack([exported.preprocess(image_bytes=image)["pixels"] for image in images])
        for view, images in {**encoded, View.WHOLE: contents}.items()
    }
    return views, shown, tf.cast(shown[View.WHOLE] > 0, tf.float32)


def _png(pixels: tf.Tensor) -> tf.Tensor:
    return tf.io.encode_png(tf.cast(tf.round(pixels), tf.uint8), compression=1)


def _image(pixels: tf.Tensor) -> Image.Image:
    image = Image.fromarray(np.asarray(pixels)[..., 0].round().astype(np.uint8))
    return image.resize((_PICTURE, _PICTURE))


def _figures(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    recall = _recall(table, classes)
    return {
        "accuracy": _right(table),
        # Of a version of the store, images may be left of some classes alone.
        "balanced": float(
            np.mean([rate["value"] for rate in recall.values() if rate["value"] is not None])
        ),
        "recall": recall,
    }


def _recall(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, intervals.Rate]:
    return {name: _right(table[table["truth"] == name]) for name in classes}


def _chance(figures: Mapping[str, Any]) -> float:
    """Returns the balanced accuracy of guessing: only classes that have images count."""
    return 1 / sum(rate["value"] is not None for rate in figures["recall"].values())


def _explained(balanced: float, whole: float, chance: float) -> float | None:
    if whole < chance + 0.05:
        return None
    return max(0.0, (balanced - chance) / (whole - chance))


def _attribution(seen: _Seen, classes: Sequence[str]) -> dict[str, Any] | None:
    usable = lungs.are_found(seen.area) & ~np.isnan(seen.inside)
    if not usable.any():
        return None

    def of(which: np.ndarray) -> dict[str, Any] | None:
        if not which.any():
            return None
        inside, area = float(seen.inside[which].mean()), float(seen.area[which].mean())
        return {"inside": inside, "area": area, "focus": inside / area, "images": int(which.sum())}

    by_class = {name: of(usable & (seen.truth == i)) for i, name in enumerate(classes)}
    return {"all": of(usable), "by_class": by_class}


def _swapped(
    candidate: _Candidate,
    records: Path,
    manifest: Mapping[str, Any],
    table: pd.DataFrame,
    seen: _Seen,
    segmenter: keras.Model,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Asks the candidate about lungs in the surroundings of another image.

    Returns:
      see `swaps.followed`; and for the page some swapped images with the candidate's answers.
    """
    recipe, exported = candidate.recipe, candidate.exported
    right = seen.probabilities.argmax(axis=1) == seen.truth
    usable = right & lungs.are_found(seen.area)
    pairs, controls = swaps.chosen(
        seen.truth, table["source"].to_numpy(), usable, recipe.classes.index(COVID)
    )
    used = sorted({image for pair in (*pairs, *controls) for image in pair})
    if not used:
        empty = np.empty((0, *recipe.input_size, 1), np.float32)
        nobody = np.empty(0, str)
        return swaps.followed(exported.classify, empty, None, seen.truth[:0], nobody, [], []), []
    pixels = _pixels(candidate, records, manifest, seen.ids[used])
    masks = None if recipe.view == "lungs" else _masks(segmenter, pixels)
    pairs, controls = (
        [(used.index(inner), used.index(outer)) for inner, outer in chosen]
        for chosen in (pairs, controls)
    )
    truth, patients = seen.truth[used], table["patient"].to_numpy(str)[used]
    figures = swaps.followed(exported.classify, pixels, masks, truth, patients, pairs, controls)
    made = swaps.swapped(pixels, masks, pairs[:_SWAPS_SHOWN])
    answers = exported.classify(pixels=made)["probabilities"].numpy()
    shown = [
        {
            "lungs": recipe.classes[truth[inner]],
            "surroundings": recipe.classes[truth[outer]],
            "pictures": [
                pages.image_uri(_image(image))
                for image in (pixels[inner], pixels[outer], made[row])
            ],
            "predicted": recipe.classes[int(answers[row].argmax())],
            "share": float(answers[row].max()),
        }
        for row, (inner, outer) in enumerate(pairs[:_SWAPS_SHOWN])
    ]
    return figures, shown


def _revealed(
    candidate: _Candidate, records: Path, manifest: Mapping[str, Any], table: pd.DataFrame
) -> list[dict[str, Any]]:
    """Returns what the candidate's features of some test images reveal; see `probes.probes`."""
    model = architectures.build(candidate.recipe, start_weights.NONE, seed=0)
    export.restore(model, candidate.saved)
    head = model.get_layer(architectures.HEAD)
    features = keras.Sequential(
        [model.get_layer(architectures.BASE), keras.Model(head.inputs[0], head.layers[-1].input)]
    )
    members = probes.sample(table)
    pixels = _pixels(candidate, records, manifest, members["id"])
    with Progress("images whose features are compared", len(members)) as progress:
        counting = keras.callbacks.LambdaCallback(
            on_predict_batch_end=lambda batch, logs: progress.advance(_BATCH)
        )
        found = features.predict(pixels, batch_size=_BATCH, verbose=0, callbacks=[counting])
    return probes.probes(found.reshape(len(members), -1), members)


def _pixels(
    candidate: _Candidate, records: Path, manifest: Mapping[str, Any], ids: Iterable[str]
) -> np.ndarray:
    """Returns what the network sees of some test images, float32 [ids, height, width, 1].

    They are read again, so that memory does not grow with the test split.
    """
    recipe = candidate.recipe
    row_of = {identity: row for row, identity in enumerate(ids)}
    pixels = np.empty((len(row_of), *recipe.input_size, 1), np.float32)
    tested = division(candidate.card["division"]).test
    with Progress("test images read again", len(row_of)) as progress:
        for content, _, identity in data.encoded_images(records, manifest, recipe, tested):
            row = row_of.get(identity.numpy().decode())
            if row is not None:
                shown = candidate.exported.preprocess(image_bytes=content)
                pixels[row] = shown["pixels"].numpy()
                progress.advance()
    return pixels


def _masks(segmenter: keras.Model, pixels: np.ndarray) -> np.ndarray:
    batches = range(0, len(pixels), _BATCH)
    return np.concatenate([lungs.find(segmenter, pixels[i : i + _BATCH]).numpy() for i in batches])


def _subgroups(table: pd.DataFrame) -> list[dict[str, Any]]:
    ages = pd.cut(table["age"], _AGES, right=False, labels=_AGE_NAMES)
    kinds = {
        "source": table["source"],
        "view": "view " + table["view"],
        "sex": "sex " + table["sex"],
        "age": ages.astype(object),
    }
    return [
        {
            "group": str(name),
            "images": len(members),
            "accuracy": _right(members),
            "recall": _right(members[members["truth"] == COVID]),
            "covid": int((members["truth"] == COVID).sum()),
            "covid_patients": members.loc[members["truth"] == COVID, "patient"].nunique(),
        }
        for kind in kinds.values()
        for name, members in table.groupby(kind.to_numpy())
    ]


def _right(members: pd.DataFrame) -> intervals.Rate:
    return intervals.share(members["truth"] == members["predicted"], members["patient"])


def _lowest(groups: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    enough = [row for row in groups if row["covid_patients"] >= _FEWEST_IN_SUBGROUP]
    return min(enough, key=lambda row: row["recall"]["value"], default=None)


def _abstention(
    score: np.ndarray, probabilities: np.ndarray, table: pd.DataFrame, classes: Sequence[str]
) -> dict[str, Any]:
    wrong = (table["truth"] != table["predicted"]).to_numpy()
    return {
        "rejected": intervals.share(score > 1, table["patient"]),
        "recall": _recall(table[score <= 1], classes),
        "ood_score": ood.risk_coverage(score, wrong),
        "confidence": ood.risk_coverage(-probabilities.max(axis=1), wrong),
    }
