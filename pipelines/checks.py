"""Checks what a command was given before anything runs that takes long."""

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
    """Checks everything that a command was given, without opening an image.

    In an object store it looks up a few names and reads tables, but never lists everything.

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
    chosen = _recipes(recipes, epochs)
    numbers = rules.parse(gate)
    if recipes is not None:
        _require_gate_can_be_met(chosen, numbers)
    for recipe in chosen:
        start_weights.require_usable(recipe, weights)
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
    if archive:
        _require_archive(location(archive), seed)
    if store:
        with reaching(store):
            names(location(store) / NAME)


def _recipes(texts: Sequence[str] | None, epochs: str) -> list[Recipe]:
    if texts is not None and not texts:
        raise UserError("recipes: name at least one; `cxrflow recipes` lists all")
    chosen = [with_epochs(recipe_named(text), epochs) for text in texts or ()]
    for recipe in chosen:
        if chosen.count(recipe) > 1:
            raise UserError(f"recipes: {recipe.name} is named more than once")
    return chosen


def _require_gate_can_be_met(recipes: Sequence[Recipe], gate: Mapping[str, float]) -> None:
    asked = {name.removesuffix(rules.LOW) for name in gate if name not in rules.RULE_NAMES}
    asked.discard(DEFAULT)
    if not any(asked <= set(recipe.classes) for recipe in recipes):
        told = "; ".join(f"{recipe.name} has {', '.join(recipe.classes)}" for recipe in recipes)
        raise UserError(
            f"gate: it names {', '.join(sorted(asked))}, and no recipe has all of these classes: {told}. "
            "Name fewer classes in --gate, or other --recipes."
        )


def _require_model(model: str) -> None:
    if not is_remote(model):
        version_in(Path(model))
        return
    with reaching(model):
        if not (location(model) / VERSION).is_file():
            raise UserError(f"{model} holds no published model: it has no {VERSION}")


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
    with reaching(source.directory):
        if source.is_csv or not is_remote(source.place):
            for _ in listed.read(source, to_train_on=to_train_on):
                pass
        elif not source.place.is_dir():
            raise UserError(f"{source.name}: there is no {source.place}")


def _require_archive(archive: Path, seed: int) -> None:
    last = spans.newest(archive)
    if last:
        spans.require_seed(archive, last, seed)
