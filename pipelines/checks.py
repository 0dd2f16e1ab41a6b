"""Checks the arguments of a command before anything runs that takes long."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.data import spans
from components.data.sources import covid_chestxray, kermany, listed
from components.trust import rules
from core.artifacts import VERSION
from core.errors import UserError
from core.locations import is_remote, location, names, reaching
from core.settings import DEFAULT
from serving import NAME
from serving.store import version_in
from training import start_weights
from training.recipes import Recipe, recipe_named, with_epochs


def check(
    *,
    covid_directory: str,
    kermany_directory: str,
    views: Sequence[str],
    sources: Sequence[str] = (),
    external: Sequence[str] = (),
    recipes: Sequence[str] | None = None,
    epochs: str = "",
    weights: str = start_weights.NONE,
    gate: str = "",
    needs_lungs: bool = False,
    model: str = "",
    archive: str = "",
    seed: int = 0,
    store: str = "",
    schema: str = "",
) -> None:
    """Checks all arguments of a command, without opening an image.

    In an object store it looks up a few names and reads tables, but never lists everything. Weights that
    would be downloaded must be there or within reach.

    Args:
      covid_directory, kermany_directory: the two published datasets.
      views, sources, external, weights, seed: as the steps take them.
      recipes: names of the recipes to train; None if none is trained.
      epochs: see `training.recipes.with_epochs`.
      gate: see `rules.parse`; one of the recipes must be able to pass it.
      needs_lungs: whether the lung segmenter is trained on the first dataset's masks.
      model: a version of the model store that must exist; or empty.
      archive, store, schema: archive of the data, model store and the user's own schema; or empty.

    Raises:
      UserError: something is wrong; the message says what, where, and what to do.
    """
    thresholds = rules.parse(gate)
    to_train = [] if recipes is None else candidates(recipes, epochs, thresholds)
    with reaching(schema):
        if schema and not location(schema).is_file():
            raise UserError(f"schema: there is no {schema}; `cxrflow schema accept` makes one")
    if model:
        _require_model(model)
    _require_covid(location(covid_directory), views, needs_lungs)
    with reaching(kermany_directory):
        kermany.class_folders(location(kermany_directory))
    for texts, to_train_on in ((sources, True), (external, False)):
        for source in listed.parse(texts).values():
            _require_source(source, to_train_on)
    if not any(map(is_remote, (covid_directory, kermany_directory, *sources))):
        _require_every_label(Path(covid_directory), Path(kermany_directory), views, sources)
    if archive:
        last = spans.newest(location(archive))
        if last:
            spans.require_seed(location(archive), last, seed)
    if store:
        _require_writable(store)
    # Last, because it may ask a server.
    for recipe in to_train:
        start_weights.require_usable(recipe, weights)


def candidates(names: Sequence[str], epochs: str, gate: Mapping[str, float]) -> list[Recipe]:
    """Returns the recipes to train.

    Args:
      names: of the recipes.
      epochs: see `training.recipes.with_epochs`.
      gate: see `rules.parse`; one of the recipes must be able to pass it.

    Raises:
      UserError: there is none, one is unknown or named twice, or none has all classes of the gate.
    """
    if not names:
        raise UserError("recipes: name at least one; `cxrflow recipes` lists all")
    recipes = [with_epochs(recipe_named(name), epochs) for name in names]
    for recipe in recipes:
        if recipes.count(recipe) > 1:
            raise UserError(f"recipes: {recipe.name} is named more than once")
    _require_gate_can_be_met(recipes, gate)
    return recipes


def _require_gate_can_be_met(recipes: Sequence[Recipe], gate: Mapping[str, float]) -> None:
    asked = {name.removesuffix(rules.LOW) for name in gate}
    asked.discard(DEFAULT)
    if not any(asked <= set(recipe.classes) for recipe in recipes):
        classes = "; ".join(f"{recipe.name} has {', '.join(recipe.classes)}" for recipe in recipes)
        raise UserError(
            f"gate: no recipe has all of the classes {', '.join(sorted(asked))}: {classes}. "
            "Name fewer classes in --gate, or other --recipes."
        )


def _require_model(model: str) -> None:
    if not is_remote(model):
        version_in(Path(model))
        return
    with reaching(model):
        if not (location(model) / VERSION).is_file():
            raise UserError(f"{model} holds no published model: it has no {VERSION}")


def require_span(archive: str) -> None:
    """Checks that an archive that someone has named holds a state of the data.

    Raises:
      UserError: it has none, or cannot be read.
    """
    if not spans.newest(location(archive)):
        raise UserError(f"archive: {archive} holds no data; `cxrflow run --archive` makes one")


def _require_writable(store: str) -> None:
    # An object store has no such question; what an account may do there shows when it is done.
    if is_remote(store):
        with reaching(store):
            names(location(store) / NAME)
        return
    place = Path(store, NAME)
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(
            f"store: the model cannot be published in {place}, because {there} "
            f"{'is not writable' if there.is_dir() else 'is not a directory'}; choose another with --store"
        )


def _require_covid(directory: Path, views: Sequence[str], needs_lungs: bool) -> None:
    with reaching(directory):
        rows = list(covid_chestxray.read(directory, views))
        usable = [row.path for row in rows if row.label and not row.excluded]
        masks = covid_chestxray.masks(directory, usable) if needs_lungs else {}
    if not usable:
        why = f", e.g. because {rows[0].excluded}" if rows else ""
        raise UserError(
            f"{covid_chestxray.NAME}: none of the {len(rows)} images in {directory}/metadata.csv can be "
            f"used{why}. Is --views right?"
        )
    if needs_lungs and len(masks) < sum(covid_chestxray.FEWEST_MASKS):
        raise UserError(
            f"{covid_chestxray.NAME}: {directory / covid_chestxray.MASKS} has masks for {len(masks)} usable "
            f"images; the lung segmenter needs at least {sum(covid_chestxray.FEWEST_MASKS)}. The masks "
            f"are part of the dataset: {covid_chestxray.WHERE_TO_GET_IT}."
        )


def _require_source(source: listed.Listed, to_train_on: bool) -> None:
    if source.is_csv or not is_remote(source.place):
        listed.require_images(source, to_train_on=to_train_on)
        return
    with reaching(source.place):
        if not source.place.is_dir():
            raise UserError(f"{source.name}: there is no {source.place}")


def _require_every_label(
    covid: Path, kermany_directory: Path, views: Sequence[str], sources: Sequence[str]
) -> None:
    # pandas takes long to import
    from components.data.named_images import named_images, require_every_label

    directories = {covid_chestxray.NAME: covid, kermany.NAME: kermany_directory}
    named, _ = named_images(directories, views, listed.parse(sources))
    present = named[(named["size"] > 0) & (named["excluded"] == "")]
    there = int((named["size"] > 0).sum())
    counts = f"of the {len(named)} images that the sources name, {there} exist"
    require_every_label(present["label"], counts)
