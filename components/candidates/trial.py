"""Step `train`: trains a recipe on a division of the data, in this process or on several machines."""

from pathlib import Path
from typing import Any

from components.candidates.champion import version_to_continue_from
from core.divisions import HOLD_OUT
from training.recipes import recipe_named, with_epochs


def train_trial(
    trial: str,
    examples: Path,
    records: Path,
    output: Path,
    checkpoints: Path,
    *,
    epochs: str = "",
    weights: str,
    seed: int,
    precision: str,
    champion: Path | None = None,
    lungs: Path | None = None,
    job: dict[str, Any],
) -> dict[str, Any]:
    """Trains a trial and exports it.

    Args:
      trial: a recipe's name, or `<recipe>@<division>`; see `Recipe.trials`.
      epochs: see `with_epochs`.
      examples, records, output, checkpoints, weights, seed, precision, lungs: see `train.train`.
      champion: the output of `champion`, which says whether to continue from it; None: from the start.
      job: the template of a TrainJob, see `train_job`; empty: the recipe is trained in this process.

    Returns:
      the content of `model.json`; see `train.train`.

    Raises:
      UserError: there is no such recipe; and see `train.train` and `train_job`.
    """
    name, _, division = trial.partition("@")
    recipe = with_epochs(recipe_named(name), epochs)
    start = version_to_continue_from(champion) if champion else None
    settings: dict[str, Any] = {
        "weights": weights,
        "seed": seed,
        "precision": precision,
        "division": division or HOLD_OUT,
    }
    inputs: dict[str, Any] = {"examples": examples, "start": start, "lungs": lungs}
    if job:
        from components.candidates.train_job import train_job

        return train_job(
            job,
            {"recipe": name, "epochs": epochs, **settings},
            {"records": records} | {key: path for key, path in inputs.items() if path},
            output,
            checkpoints,
        )
    from components.candidates.train import train  # brings TensorFlow

    return train(recipe, records, output, checkpoints, **settings, **inputs)
