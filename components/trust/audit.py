"""Step `audit`: whether a candidate decides by the lungs, or by what tells its data's sources apart.

Covid comes from one source and nearly all else from another, of children: so a model can be right for
wrong reasons (DeGrave, Janizek, Lee: "AI for radiographic COVID-19 detection selects shortcuts over
signal", Nature Machine Intelligence 2021). What is measured is held against the gate's rules; see
`components.trust.rules`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components import pages
from components.data import splits
from components.data.sources import covid_chestxray, kermany, listed
from components.data.sources.listed import Listed
from components.pages import plots
from components.trust import rules
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
)
from core.divisions import division
from core.errors import UserError
from core.files import read_json, write_aside, write_json, write_text
from core.images import for_tensorflow
from core.labels import COVID
from core.locations import reaching
from core.progress import Progress, logger
from core.tables import read_table
from training import calibration, data, export, gradcam, heat_maps, loop, lungs, metrics, ood
from training.preprocess import to_input
from training.recipes import Recipe, recipe_named
from training.views import Change

# Of each side of an image; the lungs are hardly ever in it.
_FRAME = 0.12
_CORNER = 0.2
_BATCH = 16
# Of the candidate's epochs, one in so many for the frame probe.
PROBE_SHARE = 4
_FEWEST_IN_SUBGROUP, _FEWEST_ALARMS, _FEWEST_TO_PROBE = 20, 10, 8
_FOLDS = 4
_PICTURE = 200
# The side at which whole images are changed before a candidate crops them to the lungs.
_GIVEN = 320
_AGES = (0, 18, 40, 65, 200)
_AGE_NAMES = ("under 18 years", "18 to 39 years", "40 to 64 years", "65 years and over")
_ADULT = 18


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Test images, and a candidate's answers about them; each array has a row for each image.

    Attributes:
      ids: of the images, str [N].
      truth: positions of their classes, int [N].
      features: float32 [N, features].
      ood_score: float32 [N]; see `training.ood`.
      area: share of the image that is lungs, float [N] in 0..1.
      inside: share of the heat map's mass in the lungs, float [N] in 0..1; NaN where the map is empty.
      views: by view, probabilities float32 [N, classes].
    """

    ids: np.ndarray
    truth: np.ndarray
    features: np.ndarray
    ood_score: np.ndarray
    area: np.ndarray
    inside: np.ndarray
    views: Mapping[View, np.ndarray]


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
    gate: Mapping[str, float] | None = None,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Measures what a candidate's answers on the test split rest on.

    Args:
      model: the output of `train`, or a version of the model store: of that, images that it was made with
        are left out.
      records: the TFRecords.
      examples: the output of `ingest`.
      segmenter: the output of `find_lungs`.
      output: a directory to be made, with `audit.json` and `audit.html`. Written aside and renamed.
      external: radiographs that training never saw, by name.
      gate: whose rules the page holds the candidate against; see `rules.parse`.
      kept: a directory that outlives the step, where the frame probe's training is kept; or None.

    Returns:
      what `audit.json` says:
      `views`: by name, how the candidate does when it is given the whole image, the image with its lungs
        blanked, its lungs alone, its frame alone, and without corners and burned-in letters; and
        `frame probe`, how its own network does, trained on with what a candidate is shown beside the lungs:
        the frame of whole images, the outline of lungs alone: `accuracy`, `balanced` (the mean recall of
        the classes there are) and `recall` by class, with intervals.
      `frame_probe_seconds`: of its training.
      `explained`: by name of a view without lungs, the share of the candidate's balanced accuracy above
        chance that it reaches; None where the candidate is hardly above chance.
      `attribution`: by class and `all`, the share of Grad-CAM's mass in the lungs (`inside`), that of the
        image which the lungs take (`area`), and their ratio (`focus`).
      `probes`: rows of `what`, `auc` and `images`: how well a linear classifier tells the sources of one
        class, or adults from children, by the candidate's own features, in cross-validation by patient.
      `same_source`: in covid's own source, how covid is told from the other findings; or None.
      `subgroups`: rows of `group`, `images`, `accuracy`, `recall` of covid; `lowest_subgroup`, that of the
        lowest recall with at least 20 images of covid; or None.
      `calibration`: see `calibration.reliability`; with `temperature`.
      `abstention`: on the test split, the share that is `rejected` as unlike what was trained on, and how
        many answers are wrong when only some are given (see `ood.risk_coverage`), by `ood_score` and by
        `confidence`.
      `external`: rows of `name`, `images`, `called_covid` (of those without covid), `rejected`, and by class
        `counts`, `recall`, `drop` (see `metrics.drop`) from the test split's, and `auc`.
      `leaks`: test images whose patient or picture is in training, and `leakage` (see `splits.Leakage`).
      `lungs`: what `find_lungs` says, and in how many images they were `not_found`.
      `rules`: see `rules.judged`; `recipe`, `view`, `images`, `fingerprint`, `phantoms`.

    Raises:
      UserError: the records are not whole, or no test image is left.
    """
    card = read_json(model / CARD)
    trained_as = card["recipe"]
    recipe = replace(
        recipe_named(trained_as["name"]),
        epochs=trained_as["epochs"],
        input_size=tuple(trained_as["input_size"]),
    )
    manifest, parts = data.read_manifest(records), division(card["division"])
    saved = model / SAVED_MODEL
    saved = saved if saved.is_dir() else model
    exported = export.load(saved)
    made_with: list[str] = []
    if (model / MADE_WITH).is_file():
        made_with = read_table(model / MADE_WITH)["id"].to_list()
    images = data.without(data.encoded_images(records, manifest, recipe, parts.test), made_with)
    finder = lungs.load(segmenter)
    everyone = read_table(examples / EXAMPLES)
    tested = everyone["split"].isin(parts.test) & everyone["label"].isin(list(recipe.task))
    count = int((tested & ~everyone["id"].isin(made_with)).sum())
    with Progress("test images looked at", count) as progress:
        seen, pictures = _look(exported, images, recipe, finder, progress)

    table = everyone.set_index("id").loc[seen.ids].reset_index()
    truth, probabilities = seen.truth, seen.views[View.WHOLE]
    table["truth"] = [recipe.classes[i] for i in truth]
    table["predicted"] = [recipe.classes[i] for i in probabilities.argmax(axis=1)]

    views = {name: _view(truth, shares, recipe.classes) for name, shares in seen.views.items()}
    with tempfile.TemporaryDirectory(prefix="cxrflow-") as scratch:
        probe = _frame_probe(saved, records, recipe, card, finder, kept or Path(scratch), made_with)
    views[View.PROBE] = _view(probe["truth"], probe["probabilities"], recipe.classes)
    summary = read_json(examples / SUMMARY)
    leak = splits.leakage(everyone, summary["seed"], folds=summary["folds"])
    groups = _subgroups(table)
    found: dict[str, Any] = {
        "recipe": recipe.name,
        "division": card["division"],
        "starting_point": card["starting_point"],
        "view": recipe.view,
        "images": len(truth),
        "fingerprint": manifest["fingerprint"],
        "phantoms": card["phantoms"] or manifest["phantoms"],
        "views": views,
        "frame_probe_seconds": round(probe["seconds"], 1),
        "explained": {
            name: _explained(
                views[name]["balanced"], views[View.WHOLE]["balanced"], len(recipe.classes)
            )
            for name in (View.PROBE, View.LUNG_FREE, View.FRAME_ALONE)
        },
        "attribution": _attribution(seen, recipe.classes),
        "probes": _probes(seen.features, table),
        "same_source": _same_source(table, probabilities[:, recipe.classes.index(COVID)]),
        "subgroups": groups,
        "lowest_subgroup": _lowest(groups),
        "calibration": {
            **calibration.reliability(probabilities, truth),
            "temperature": card["temperature"],
        },
        "abstention": _abstention(seen.ood_score, probabilities, truth),
        "external": [
            _external(exported, source, recipe, views[View.WHOLE]["recall"])
            for source in (external or {}).values()
        ],
        "leaks": leak.ours,
        "leakage": vars(leak),
        "lungs": {
            **read_json(segmenter / SEGMENTER_CARD),
            "not_found": int((seen.area < lungs.LEAST).sum()),
        },
    }
    found["rules"] = rules.judged(found, gate or rules.parse(""))
    page = pages.render(
        AUDIT_PAGE,
        version=version("cxrflow"),
        fingerprint=manifest["fingerprint"],
        phantoms=found["phantoms"],
        quick=recipe.quick,
        audit=found,
        classes=recipe.classes,
        levels=plots.levels(
            {name: view["balanced"] for name, view in views.items()}, 1 / len(recipe.classes)
        ),
        reliability=plots.reliability(found["calibration"]["bins"]),
        risk=plots.risk_coverage(
            {
                "out-of-distribution score": found["abstention"]["ood_score"],
                "confidence": found["abstention"]["confidence"],
            }
        ),
        pictures=pictures,
        colour_bar=heat_maps.colour_bar(),
    )
    with write_aside(output) as aside:
        aside.mkdir()
        write_json(aside / AUDIT, found)
        write_text(aside / AUDIT_PAGE, page)
    for row in found["rules"]:
        if not row["passed"]:
            logger.warning("%s: %s", recipe.name, row["reason"])
    verdicts = [row["verdict"] for row in found["rules"]]
    logger.info(
        "%s: of %d rules of trust %s",
        recipe.name,
        len(verdicts),
        ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)),
    )
    return found


def blanked(pixels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns images in which what is in a mask has the mean of the rest.

    Args:
      pixels: float32 [N, height, width, 1] in 0..255.
      mask: float32 of the same shape, or [1, height, width, 1]; 1 where nothing shall be seen.
    """
    axes = (1, 2, 3)
    rest = 1 - tf.broadcast_to(mask, tf.shape(pixels))
    mean = tf.math.divide_no_nan(
        tf.reduce_sum(pixels * rest, axes, keepdims=True), tf.reduce_sum(rest, axes, keepdims=True)
    )
    return pixels * rest + mean * (1 - rest)


def inner(height: int, width: int) -> np.ndarray:
    """Returns float32 [1, height, width, 1]: 0 in the frame, the outer 12 % of each side, and 1 inside."""
    mask = np.ones((1, height, width, 1), np.float32)
    y, x = round(_FRAME * height), round(_FRAME * width)
    mask[:, :y], mask[:, -y:], mask[:, :, :x], mask[:, :, -x:] = 0, 0, 0, 0
    return mask


def shown_otherwise(pixels: tf.Tensor, lung_mask: tf.Tensor) -> dict[View, tf.Tensor]:
    """Returns images as the audit shows them to a model.

    Args:
      pixels: float32 [N, height, width, 1] in 0..255.
      lung_mask: where the lungs are; see `lungs.find`.

    Returns:
      by view, images of the same shape. Lungs are blanked with a margin, so that their outline is gone, too.
    """
    height, width = pixels.shape[1:3]
    margin = 2 * max(1, round(min(height, width) / 40)) + 1
    swollen = tf.nn.max_pool2d(lung_mask, margin, 1, "SAME")
    corner = np.zeros((1, height, width, 1), np.float32)
    y, x = round(_CORNER * height), round(_CORNER * width)
    corner[:, :y, :x] = corner[:, :y, -x:] = corner[:, -y:, :x] = corner[:, -y:, -x:] = 1
    # Letters are burned in at full brightness.
    highest = tf.reduce_max(pixels, (1, 2, 3), keepdims=True)
    letters = tf.nn.max_pool2d(tf.cast(pixels > 0.95 * highest, tf.float32), 3, 1, "SAME")
    markers = tf.maximum(tf.broadcast_to(corner, tf.shape(lung_mask)), letters) * (1 - lung_mask)
    return {
        View.WHOLE: pixels,
        View.LUNG_FREE: blanked(pixels, swollen),
        View.LUNGS_ALONE: blanked(pixels, 1 - swollen),
        View.FRAME_ALONE: blanked(pixels, inner(height, width)),
        View.NO_MARKERS: blanked(pixels, markers),
    }


def _look(
    exported: export.Exported,
    images: tf.data.Dataset,
    recipe: Recipe,
    segmenter: keras.Model,
    progress: Progress,
) -> tuple[_Seen, list[dict[str, Any]]]:
    """Shows the candidate every test image in every view.

    Returns:
      the images with the candidate's answers; and for the page the first image of each class in each view.

    Raises:
      UserError: there is no image.
    """
    batches: list[_Seen] = []
    pictures: dict[int, dict[str, Any]] = {}
    for contents, truth, identity in images.batch(_BATCH):
        pictured, shown, lung_mask = _shown(exported, contents, recipe, segmenter)
        seen, heat = _answers(exported, shown, lung_mask, truth.numpy(), identity.numpy())
        batches.append(seen)
        progress.advance(len(seen.ids))
        for row, position in enumerate(seen.truth):
            if position not in pictures and seen.area[row] >= lungs.LEAST:
                pictures[position] = {
                    "truth": recipe.classes[position],
                    "views": [
                        {
                            "name": view,
                            "picture": _picture(pixels[row]),
                            "predicted": recipe.classes[int(seen.views[view][row].argmax())],
                            "share": float(seen.views[view][row].max()),
                        }
                        for view, pixels in pictured.items()
                    ],
                    "heat_map": pages.image_uri(
                        heat_maps.overlay(_image(shown[View.WHOLE][row]), heat[row])
                    ),
                }
    if not batches:
        raise UserError(
            "audit: the version was made with every image of the test split; give data that has others"
        )
    return _joined(batches), [pictures[position] for position in sorted(pictures)]


def _answers(
    exported: export.Exported,
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
    fitted = np.stack([gradcam.fitted(heat_map, pixels.shape[1:3]) for heat_map in heat])
    mask = lung_mask.numpy()[..., 0]
    mass = fitted.sum(axis=(1, 2))
    seen = _Seen(
        ids=np.array([name.decode() for name in identity]),
        truth=truth,
        features=exported.features(pixels=pixels)["features"].numpy(),
        ood_score=answers[View.WHOLE]["ood_score"].numpy(),
        area=mask.mean(axis=(1, 2)),
        inside=np.divide(
            (fitted * mask).sum(axis=(1, 2)), mass, out=np.full(len(mass), np.nan), where=mass > 0
        ),
        views={view: answer["probabilities"].numpy() for view, answer in answers.items()},
    )
    return seen, heat


def _shown(
    exported: export.Exported, contents: tf.Tensor, recipe: Recipe, segmenter: keras.Model
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


def _picture(pixels: tf.Tensor) -> str:
    return pages.image_uri(_image(pixels))


def _view(truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    figures = metrics.evaluate(truth, probabilities, classes)
    recall = {name: figures["per_class"][name]["recall"] for name in classes}
    return {
        "accuracy": figures["accuracy"],
        # Of a version of the store, images may be left of some classes alone.
        "balanced": float(
            np.mean([rate["value"] for rate in recall.values() if rate["value"] is not None])
        ),
        "recall": recall,
    }


def _explained(balanced: float, whole: float, classes: int) -> float | None:
    chance = 1 / classes
    if whole < chance + 0.05:
        return None
    return max(0.0, (balanced - chance) / (whole - chance))


def _attribution(seen: _Seen, classes: Sequence[str]) -> dict[str, Any] | None:
    usable = (seen.area >= lungs.LEAST) & ~np.isnan(seen.inside)
    if not usable.any():
        return None

    def of(which: np.ndarray) -> dict[str, Any] | None:
        if not which.any():
            return None
        inside, area = float(seen.inside[which].mean()), float(seen.area[which].mean())
        return {"inside": inside, "area": area, "focus": inside / area, "images": int(which.sum())}

    by_class = {name: of(usable & (seen.truth == i)) for i, name in enumerate(classes)}
    return {"all": of(usable), "by_class": by_class}


def _frame_probe(
    model: Path,
    records: Path,
    recipe: Recipe,
    card: Mapping[str, Any],
    segmenter: keras.Model,
    checkpoints: Path,
    made_with: Sequence[str],
) -> dict[str, Any]:
    """Trains the candidate's network on, with nothing but what it is shown beside the lungs.

    From the candidate's own weights, because these have learnt already what in a frame tells classes apart;
    for a quarter of its epochs.

    Returns:
      `truth` and `probabilities`, as in `_look`, of the test split without the images whose ids are in
      `made_with`; `seconds` of training.
    """
    outline = recipe.view == "lungs"
    mask = tf.constant(inner(*recipe.input_size)[0])

    def without_lungs(pixels: tf.Tensor) -> tf.Tensor:
        if outline:
            return 255 * tf.cast(pixels > 0, tf.float32)
        return blanked(pixels[tf.newaxis], mask[tf.newaxis])[0]

    probe = replace(
        recipe,
        name=f"{recipe.name}-frame-probe",
        epochs=-(-recipe.epochs // PROBE_SHARE),
        balanced=False,
        augmented=False,
    )
    trained = loop.train(
        probe,
        records,
        checkpoints,
        seed=card["seed"],
        division=card["division"],
        start=model,
        segmenter=segmenter,
        change=Change("outline" if outline else f"frame {_FRAME}", without_lungs),
    )
    tested = division(card["division"]).test
    _, probabilities, truth = loop.answers(trained, probe, tested, without=made_with)
    return {
        "truth": truth,
        "probabilities": probabilities,
        "seconds": float(trained.history["seconds"].sum()),
    }


def _probes(features: np.ndarray, table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for label, members in table.groupby("truth", sort=False):
        sources = members["source"].value_counts().index[:2]
        named = members[members["source"].isin(sources)]
        rows.append(_probe(f"source of {label}", features, named, named["source"] == sources[0]))
    others = table[table["truth"] != COVID]
    adult = _adult(others).dropna()
    rows.append(_probe(rules.AGE_PROBE, features, others.loc[adult.index], adult == 1))
    return [row for row in rows if row]


def _probe(
    what: str, features: np.ndarray, members: pd.DataFrame, which: pd.Series
) -> dict[str, Any] | None:
    """Returns how well one side is told from the other; None where either is too few to say."""
    for side in (members[which], members[~which]):
        # Every fold must have patients of both to learn from.
        if len(side) < _FEWEST_TO_PROBE or side["patient"].nunique() < _FOLDS:
            return None
    linear = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    )
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(
        linear, features[members.index], which.astype(int), groups=members["patient"], cv=folds,
        method="predict_proba",
    )[:, 1]  # fmt: skip
    return {"what": what, "auc": float(roc_auc_score(which, scores)), "images": len(members)}


def _adult(table: pd.DataFrame) -> pd.Series:
    """Returns 1 for adults, 0 for children, NaN where it is not known."""
    adult = (table["age"] >= _ADULT).astype(float).where(table["age"].notna())
    return adult.mask(adult.isna() & (table["source"] == kermany.NAME), 0.0)


def _same_source(table: pd.DataFrame, score: np.ndarray) -> dict[str, Any] | None:
    """Returns how covid is told where the source is no clue; None on too few images."""
    own = (table["source"] == covid_chestxray.NAME).to_numpy()
    is_covid = (table["truth"] == COVID).to_numpy()
    others = own & ~is_covid
    if others.sum() < _FEWEST_ALARMS or not (own & is_covid).any():
        return None
    called = (table["predicted"] == COVID).to_numpy()
    return {
        "recall": metrics.rate(int((called & own & is_covid).sum()), int((own & is_covid).sum())),
        "false_alarms": metrics.rate(int((called & others).sum()), int(others.sum())),
        "auc": float(roc_auc_score(is_covid[own], score[own])),
    }


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
            "accuracy": metrics.rate(
                int((members["truth"] == members["predicted"]).sum()), len(members)
            ),
            "recall": metrics.rate(
                int(((members["truth"] == COVID) & (members["predicted"] == COVID)).sum()),
                int((members["truth"] == COVID).sum()),
            ),
            "covid": int((members["truth"] == COVID).sum()),
        }
        for kind in kinds.values()
        for name, members in table.groupby(kind.to_numpy())
    ]


def _lowest(groups: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    enough = [row for row in groups if row["covid"] >= _FEWEST_IN_SUBGROUP]
    return min(enough, key=lambda row: row["recall"]["value"], default=None)


def _abstention(score: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    wrong = probabilities.argmax(axis=1) != truth
    return {
        "rejected": metrics.rate(int((score > 1).sum()), len(score)),
        "ood_score": ood.risk_coverage(score, wrong),
        "confidence": ood.risk_coverage(-probabilities.max(axis=1), wrong),
    }


def _external(
    exported: export.Exported,
    source: Listed,
    recipe: Recipe,
    internal: Mapping[str, Mapping[str, float | None]],
) -> dict[str, Any]:
    with reaching(source.place):
        rows = list(listed.read(source))
        answers = []
        with Progress(f"images of {source.name} asked", len(rows)) as progress:
            for start in range(0, len(rows), _BATCH):
                some = rows[start : start + _BATCH]
                answers.append(_asked(exported, [source.directory / row.path for row in some]))
                progress.advance(len(some))
    probabilities, score = (np.concatenate(one) for one in zip(*answers, strict=True))
    predicted = np.array(recipe.classes)[probabilities.argmax(axis=1)]
    # A finding that is none of our labels is none of the classes, and no covid.
    truth = np.array([recipe.task.get(row.label or "", row.finding.lower()) for row in rows])
    recall, drop, counts, auc = {}, {}, {}, {}
    for position, one in enumerate(recipe.classes):
        members = truth == one
        if members.any():
            counts[one] = int(members.sum())
            recall[one] = metrics.rate(int((predicted[members] == one).sum()), counts[one])
            drop[one] = metrics.drop(internal[one], recall[one])
            if not members.all():
                auc[one] = float(roc_auc_score(members, probabilities[:, position]))
    others = truth != COVID
    return {
        "name": source.name,
        "images": len(rows),
        "called_covid": metrics.rate(int((predicted[others] == COVID).sum()), int(others.sum())),
        "rejected": metrics.rate(int((score > 1).sum()), len(rows)),
        "counts": counts,
        "recall": recall,
        "drop": drop,
        "auc": auc,
    }


def _asked(exported: export.Exported, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    pixels = []
    for file in files:
        content = tf.constant(for_tensorflow(file.read_bytes()))
        pixels.append(exported.preprocess(image_bytes=content)["pixels"])
    answer = exported.classify(pixels=tf.stack(pixels))
    return answer["probabilities"].numpy(), answer["ood_score"].numpy()
