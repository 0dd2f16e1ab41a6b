"""Step `find_lungs`: trains the lung segmenter, by which the audit tells what a model looks at."""

import contextlib
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from kfp import dsl
from PIL import Image

from components import pages
from components.divisions import TEST, TRAIN
from components.errors import UserError
from components.examples import EXAMPLES, SUMMARY
from components.files import alone, read_json, sha256_of, write_aside, write_json, write_text
from components.images import for_tensorflow
from components.progress import logger
from components.sources import covid_chestxray
from components.step import training_step
from components.tables import read_table
from training import data, lungs
from training.recipes import RECIPES

PAGE = "lungs.html"

EPOCHS = 30
_SHOWN = 12
_SHOWN_SIDE = 224


def find_lungs(
    covid_directory: Path,
    examples: Path,
    records: Path,
    output: Path,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Trains the segmenter on the masks of the training split; those of the test split judge it.

    Args:
      covid_directory: the covid-chestxray-dataset, with masks in `annotations/`.
      examples: the output of `ingest`.
      records: the TFRecords, of whose test split some images of every source are shown on the page.
      output: a directory to be made, with the network (see `training.lungs`), `lungs.json` and
        `lungs.html`. Written aside and renamed.
      epochs: passes over the training masks.
      seed: of initial weights and of the changes that images undergo.
      kept: a directory that outlives the step, where the network is kept for the same masks; or None.

    Returns:
      what `lungs.json` says: `dice`, the mean over the test split's masks, `worst`, the lowest of them,
      `trained_on` and `tested_on`, numbers of masks, and `digest` of all that it depends on.

    Raises:
      UserError: there are too few masks.
    """
    # Of two runs at once one learns, and the other finds what it has kept.
    with alone(kept / "lungs") if kept else contextlib.nullcontext():
        return _learnt(covid_directory, examples, records, output, epochs, seed, kept)


def _learnt(
    covid_directory: Path,
    examples: Path,
    records: Path,
    output: Path,
    epochs: int,
    seed: int,
    kept: Path | None,
) -> dict[str, Any]:
    table = read_table(examples / EXAMPLES)
    table = table[table["source"] == covid_chestxray.NAME]
    masks = covid_chestxray.masks(covid_directory, table["path"])
    table = table[table["path"].isin(masks)]
    counts = table["split"].value_counts()
    to_train, to_test = covid_chestxray.FEWEST_MASKS
    if counts.get(TRAIN, 0) < to_train or counts.get(TEST, 0) < to_test:
        raise UserError(
            f"find_lungs: {covid_directory / covid_chestxray.MASKS} has masks of "
            f"{counts.get(TRAIN, 0)} training and {counts.get(TEST, 0)} test images; at least "
            f"{to_train} and {to_test} are needed. They come with the dataset: "
            f"{covid_chestxray.WHERE_TO_GET_IT}."
        )
    digest = hashlib.sha256(
        repr(
            (
                [(path, sha256_of(masks[path])) for path in sorted(table["path"])],
                table.sort_values("path")[["sha256", "split"]].values.tolist(),
                (epochs, seed, tf.__version__),
            )
        ).encode()
    ).hexdigest()[:16]
    there = kept / f"lungs-{digest}" if kept else None
    if there and there.is_dir():
        logger.info("the lung segmenter of these %d masks is there already", len(table))
        with write_aside(output) as aside:
            shutil.copytree(there, aside)
        return dict(read_json(output / lungs.CARD))

    images, truth = (
        {
            split: np.stack([read(path) for path in table.loc[table["split"] == split, "path"]])
            for split in (TRAIN, TEST)
        }
        for read in (
            lambda path: lungs.shown(for_tensorflow((covid_directory / path).read_bytes())),
            lambda path: (lungs.shown(masks[path].read_bytes()) > 127).astype(np.float32),
        )
    )
    logger.info("learning where the lungs are from %d masks", len(images[TRAIN]))
    model = lungs.build(seed)
    lungs.train(model, images[TRAIN], truth[TRAIN], epochs, seed)
    found = lungs.find(model, images[TEST]).numpy()
    dices = [float(lungs.dice(truth[TEST][i : i + 1], found[i : i + 1])) for i in range(len(found))]
    card = {
        "dice": float(np.mean(dices)),
        "worst": float(min(dices)),
        "trained_on": len(images[TRAIN]),
        "tested_on": len(dices),
        "epochs": epochs,
        "seed": seed,
        "digest": digest,
    }
    summary = read_json(examples / SUMMARY)
    page = pages.render(
        "lungs.html",
        version=version("cxrflow"),
        fingerprint=summary["fingerprint"],
        phantoms=summary["phantoms"],
        card=card,
        gallery=_gallery(model, records),
    )
    with write_aside(output) as aside:
        aside.mkdir()
        model.save(aside / lungs.MODEL)
        write_json(aside / lungs.CARD, card)
        write_text(aside / PAGE, page)
    if there:
        with write_aside(there) as aside:
            shutil.copytree(output, aside)
    logger.info(
        "lungs are found with a Dice coefficient of %.3f on %d masks that were held out",
        card["dice"],
        card["tested_on"],
    )
    return card


def _gallery(model: Any, records: Path) -> list[dict[str, str]]:
    """Returns some test images of every source, with the lungs' outline."""
    manifest = data.read_manifest(records)
    recipe = next(iter(RECIPES.values()))  # of all four labels
    chosen: dict[str, list[tuple[str, bytes]]] = {}
    for content, _, identity in data.encoded_images(
        records, manifest, recipe, [TEST]
    ).as_numpy_iterator():
        source = identity.decode().partition("/")[0]
        chosen.setdefault(source, []).append((identity.decode(), content))
    rows = []
    for source, of_source in sorted(chosen.items()):
        for identity, content in of_source[: _SHOWN // len(chosen)]:
            pixels = tf.image.resize(lungs.shown(content), (_SHOWN_SIDE, _SHOWN_SIDE)).numpy()
            mask = lungs.find(model, pixels[np.newaxis])[0].numpy()
            eroded = -tf.nn.max_pool2d(-mask[np.newaxis], 5, 1, "SAME")[0].numpy()
            outline = (mask - eroded) > 0
            colour = np.where(outline, np.array([255, 176, 0], np.float32), pixels)
            picture = Image.fromarray(colour.clip(0, 255).astype(np.uint8))
            rows.append({"id": identity, "source": source, "picture": pages.image_uri(picture)})
    return rows


@training_step
def find_lungs_step(
    covid_directory: str,
    examples: dsl.Input[dsl.Dataset],
    records: dsl.Input[dsl.Dataset],
    seed: int,
    checkpoints: str,
    lungs: dsl.Output[dsl.Model],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Trains the lung segmenter from the dataset's masks. See `find_lungs`."""
    import shutil
    from pathlib import Path

    from components.find_lungs import PAGE, find_lungs
    from components.locations import location

    card = find_lungs(
        location(covid_directory),
        Path(examples.path),
        Path(records.path),
        Path(lungs.path),
        seed=seed,
        kept=Path(checkpoints) if checkpoints else None,
    )
    shutil.copyfile(Path(lungs.path, PAGE), page.path)
    lungs.metadata.update({key: card[key] for key in ("dice", "trained_on", "tested_on")})
