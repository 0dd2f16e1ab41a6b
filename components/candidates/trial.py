"""Step `train`: a recipe on a division of the data, trained here or on several machines."""

from pathlib import Path
from typing import Any

from components.candidates.champion import gone_on_from
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
      examples, records, output, checkpoints, weights, seed, precision, lungs: see `components.candidates.train.train`.
      champion: the output of `champion`, which says whether training goes on from it; None: it does not.
      job: what a TrainJob is made from; see `components.candidates.train_job`. Empty: training is in this process.

    Returns:
      what `model.json` says; see `components.candidates.train.train`.

    Raises:
      UserError: there is no such recipe; and see `components.candidates.train.train` and `components.candidates.train_job`.
    """
    name, _, division = trial.partition("@")
    recipe = with_epochs(recipe_named(name), epochs)
    start = gone_on_from(champion) if champion else None
    said: dict[str, Any] = {
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
            {"recipe": name, "epochs": epochs, **said},
            {"records": records} | {key: one for key, one in inputs.items() if one},
            output,
            checkpoints,
        )
    from components.candidates.train import train  # where others train, TensorFlow is not needed

    return train(recipe, records, output, checkpoints, **said, **inputs)
