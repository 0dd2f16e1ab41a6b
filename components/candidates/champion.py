"""Step `champion`: the version that is served, asked about the images that challengers are judged on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.artifacts import CARD, CHAMPION, DECISION, MADE_WITH, PREDICTIONS
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
    go_on: bool = False,
) -> None:
    """Asks the version that is served about the images of the test split that it was not made with.

    Args:
      models: the model store; see `serving.store`.
      name: of the model there.
      records: the TFRecords.
      output: a directory to be made, with `champion.json`: `version`, its number or None, `place`, its
        directory or URL, `recipe`, `trust`, the verdict on it (see `serving.verdict`), and `go_on`; and where
        there is a version `predictions.parquet` (see `export.predictions`).
      service: the InferenceService that says which version is served; None: the store's latest.
      go_on: whether training shall go on from its weights.

    Raises:
      UserError: the store or the cluster is not there, or the version is damaged.
    """
    version = _served(models, name, service)
    found: dict[str, Any] = {"version": None, "go_on": False}
    with write_aside(output) as aside:
        aside.mkdir()
        if version:
            there = store.fetched(version)
            card = read_json(there / CARD)
            recipe = recipe_named(card["recipe"]["name"])
            found = {
                "version": store.number_of(version),
                "place": version,
                "recipe": recipe.name,
                "trust": verdict.of_winner(read_json(there / DECISION)),
                "go_on": go_on,
            }
            predictions = _asked(there, records, recipe)
            predictions.to_parquet(aside / PREDICTIONS, index=False)
            logger.info(
                "version %s, %s, is served: asked about %d test images",
                found["version"],
                recipe.name,
                len(predictions),
            )
        else:
            logger.info("no version is served yet")
        write_json(aside / CHAMPION, found)


def gone_on_from(champion: Path) -> Path | None:
    """Returns the version that training shall go on from, on this machine, or None.

    Args:
      champion: the output of `champion`.

    Raises:
      UserError: the version is not there, or damaged.
    """
    found = read_json(champion / CHAMPION)
    return store.fetched(found["place"]) if found["go_on"] else None


def _served(models: str, name: str, service: "InferenceService | None") -> str | None:
    if service:
        from serving.cluster import state  # imports Kubernetes' client, which only a cluster needs

        found = state.served(service)
        return found.stable.uri if found else None
    try:
        return store.newest(models, name)
    except UserError as error:
        raise UserError(f"champion: {error}") from error


def _asked(version: Path, records: Path, recipe: Recipe) -> "pd.DataFrame":
    # Where no version is served yet, the step needs no TensorFlow.
    from core.tables import read_table
    from training import data, export

    images = data.encoded_images(
        records, data.read_manifest(records), recipe, division(HOLD_OUT).test
    )
    predictions = export.predictions(export.load(version), images, recipe.classes)
    if (version / MADE_WITH).is_file():
        made_with = read_table(version / MADE_WITH)["id"]
        predictions = predictions[~predictions["id"].isin(made_with)]
    return predictions
