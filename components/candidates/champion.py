"""Step `champion`: predicts the challengers' test images with the version that is served."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.artifacts import CARD, CHAMPION, DECISION, PREDICTIONS
from core.divisions import HOLD_OUT, division
from core.errors import UserError
from core.files import read_json, write_aside, write_json
from core.progress import logger
from serving import store, verdict
from training.recipes import Recipe, recipe_named

if TYPE_CHECKING:
    import pandas as pd

    from serving.cluster.inference_service import InferenceService


def champion(
    models: str,
    name: str,
    records: Path,
    output: Path,
    *,
    service: "InferenceService | None" = None,
    continues: bool = False,
) -> None:
    """Predicts test images that are unrelated to what the version that is served was made with.

    Args:
      models: the model store; see `serving.store`.
      name: of the model there.
      records: the TFRecords.
      output: the directory to write, with `champion.json`: `version`, its number or None, `place`, its
        directory or URL, `recipe`, `trust`, the verdict on it (see `serving.verdict`), and `continues`; and
        `predictions.parquet` if there is a version (see `saved_model.predictions`).
      service: the InferenceService that says which version is served; None: the store's latest.
      continues: whether training continues from its weights.

    Raises:
      UserError: the store or the cluster cannot be reached, or the version is damaged.
    """
    version = _served(models, name, service)
    described: dict[str, Any] = {"version": None, "continues": False}
    with write_aside(output) as aside:
        aside.mkdir()
        if version:
            there = store.fetched(version)
            card = read_json(there / CARD)
            recipe = recipe_named(card["recipe"]["name"])
            described = {
                "version": store.number_of(version),
                "place": version,
                "recipe": recipe.name,
                "trust": verdict.of_winner(read_json(there / DECISION)),
                "continues": continues,
            }
            predictions = _predicted(there, records, recipe)
            predictions.to_parquet(aside / PREDICTIONS, index=False)
            served = f"version {described['version']}, {recipe.name}, is served"
            logger.info("%s: predicted %d test images", served, len(predictions))
        else:
            logger.info("no version is served yet")
        write_json(aside / CHAMPION, described)


def version_to_continue_from(champion: Path) -> Path | None:
    """Returns the local directory of the version that training continues from, or None.

    Args:
      champion: the output of `champion`.

    Raises:
      UserError: the version is missing or damaged.
    """
    described = read_json(champion / CHAMPION)
    return store.fetched(described["place"]) if described["continues"] else None


def _served(models: str, name: str, service: "InferenceService | None") -> str | None:
    if service:
        from serving.cluster import state  # imports Kubernetes' client, which only a cluster needs

        there = state.served(service)
        return there.stable.uri if there else None
    try:
        return store.newest(models, name)
    except UserError as error:
        raise UserError(f"champion: {error}") from error


def _predicted(version: Path, records: Path, recipe: Recipe) -> "pd.DataFrame":
    # If no version is served yet, the step needs no TensorFlow.
    from components.candidates.made_with import related
    from training import data, saved_model

    images = data.encoded_images(
        records, data.read_manifest(records), recipe, division(HOLD_OUT).test
    )
    predictions = saved_model.predictions(saved_model.load(version), images, recipe.classes)
    everyone = data.identities(records)
    asked = everyone[everyone["id"].isin(predictions["id"])]
    to_leave_out = asked["id"][related(asked, version, everyone)]
    return predictions[~predictions["id"].isin(to_leave_out)]
