"""Step `pretrain`: trains a base on chest X-rays, for machines that cannot download ImageNet's weights.

It learns normal, bacterial and viral from Kermany's images. It must not see an image, patient or
near-duplicate of a later test split: `images.parquet` beside the weights lists its images, and each training
that starts from the weights checks that list (`require_unseen`).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from components.candidates.choose import tested_on
from components.data.relatives import IDENTITY, relatives
from core.artifacts import BASE_WEIGHTS, EXAMPLES, MADE_WITH, PRETRAINING
from core.divisions import TRAIN
from core.errors import UserError
from core.files import write_aside, write_json
from core.labels import BACTERIAL, NORMAL, VIRAL
from core.progress import logger
from core.tables import read_table
from training import architectures, data, loop, start_weights
from training.precision import AUTO
from training.recipes import Recipe


def pretrain(
    recipe: Recipe,
    chosen: Path,
    records: Path,
    output: Path,
    checkpoints: Path,
    *,
    size: int = 0,
    seed: int = 0,
    precision: str = AUTO,
) -> dict[str, Any]:
    """Trains a recipe's base, with its own linear head.

    Args:
      recipe: gives the base, input size, batch and epochs.
      chosen: the output of `choose`.
      records: the TFRecords of `chosen`.
      output: the directory to write, to be given as `weights`. Written aside and renamed.
      size: side of the images in pixels, 0 for the recipe's. Convolutions accept any size, and small images
        train faster.
      checkpoints, seed, precision: see `training.loop.train`.

    Returns:
      the content of `pretraining.json`: the recipe, the base, numbers of images by class, the last epoch's
      validation accuracy, the data's fingerprint, seed, and the time it took.
    """
    manifest = data.read_manifest(records)
    labels = manifest["splits"][TRAIN]["labels"]
    teacher = replace(
        recipe,
        name=f"pretrain-{recipe.base}",
        task={name: name for name in (NORMAL, BACTERIAL, VIRAL) if name in labels},
        input_size=(size, size) if size else recipe.input_size,
        head="linear",
        view="full",
        mixed=False,
        frozen=False,
        learning_rate=1e-4,
    )
    trained = loop.train(
        teacher,
        records,
        checkpoints,
        weights=start_weights.NONE,
        seed=seed,
        precision=precision,
    )
    counts = data.class_counts(manifest, teacher, (TRAIN,))
    described = {
        "recipe": recipe.name,
        "base": recipe.base,
        "input_size": list(teacher.input_size),
        "epochs": recipe.epochs,
        "images": sum(counts.values()),
        "classes": counts,
        "validation_accuracy": float(trained.history["val_accuracy"].iloc[-1]),
        "fingerprint": manifest["fingerprint"],
        "phantoms": manifest["phantoms"],
        "seed": seed,
        "seconds": round(float(trained.history["seconds"].sum()), 1),
    }
    seen = read_table(chosen / EXAMPLES, columns=IDENTITY)
    with write_aside(output) as aside:
        aside.mkdir()
        trained.model.get_layer(architectures.BASE).save_weights(aside / BASE_WEIGHTS)
        seen.to_parquet(aside / MADE_WITH, index=False)
        write_json(aside / PRETRAINING, described)
    logger.info(
        "pretrained %s on %d images of %s: validation accuracy %.3f",
        recipe.base,
        described["images"],
        ", ".join(counts),
        described["validation_accuracy"],
    )
    return described


def require_unseen(weights: Path, examples: Path | None, recipe: Recipe, division: str) -> None:
    """Checks that a pretrained base has seen no relative of a test image.

    Args:
      weights: the output of `pretrain`.
      examples: the output of `ingest`.
      recipe, division: which images are test images.

    Raises:
      UserError: it has seen one, or `examples` are missing.
    """
    if examples is None:
        raise UserError(f"weights: {weights} was pretrained; give the examples to check it against")
    seen = read_table(weights / MADE_WITH)
    table = read_table(examples / EXAMPLES)
    tested = table[tested_on(table, recipe, (division,))]
    common = relatives(tested, seen)
    if common.any():
        raise UserError(
            f"weights: {weights} was pretrained on relatives (the same patient or picture) of "
            f"{common.sum()} of {len(tested)} images that {recipe.name} is tested on, e.g. "
            f"{tested['id'][common].iloc[0]}. Pretrain with the same data, seed, split and subset as "
            f"in the later training: `cxrflow pretrain {recipe.name} …`."
        )
