"""Step `find_lungs`: trains the lung segmenter, which the audit needs to tell where a model looks."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from components import pages
from components.data.sources import covid_chestxray
from core.artifacts import EXAMPLES, LUNGS_PAGE, SEGMENTER, SEGMENTER_CARD, SUMMARY
from core.divisions import TEST, TRAIN, VALIDATION
from core.errors import UserError
from core.files import alone, read_json, sha256_of, write_aside, write_json, write_text
from core.images import BadImage, content_of
from core.progress import Progress, logger
from core.tables import read_table
from training import data, lungs
from training import kept as keeping
from training.preprocess import decoded
from training.recipes import RECIPES

# Side of the compared masks in pixels; the network's own may differ.
_JUDGED_SIDE = 128
_SHOWN = 12
_SHOWN_SIDE = 224


def find_lungs(
    covid_directory: Path,
    examples: Path,
    records: Path,
    output: Path,
    *,
    seed: int = 0,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Trains the segmenter on the masks of the training split, and measures it on those of the test split.

    Args:
      covid_directory: the covid-chestxray-dataset, with masks in `annotations/`.
      examples: the output of `ingest`.
      records: the TFRecords; the page shows some test images of each source.
      output: the directory to write, with the network (see `training.lungs`), `lungs.json` and
        `lungs.html`. Written aside and renamed.
      seed: of the initial weights and the augmentation.
      kept: a directory that outlives the step, which keeps the network for the same masks; or None.

    Returns:
      the content of `lungs.json`: `dice`, the mean Dice coefficient of the test split's masks; `worst`, the
      lowest one; `trained_on`, `watched` and `tested_on`, the numbers of training, validation and test masks;
      and `validation`, the Dice coefficients on the validation masks during training.

    Raises:
      UserError: there are too few readable masks.
    """
    summary = read_json(examples / SUMMARY)
    with tempfile.TemporaryDirectory(prefix="cxrflow-") as scratch:
        home = kept or Path(scratch)
        # Of two concurrent runs one trains, and the other finds its network.
        with alone(home / "lungs"):
            network = _network(covid_directory, examples, home, seed)
        card = dict(read_json(network / SEGMENTER_CARD))
        page = pages.render(
            LUNGS_PAGE,
            fingerprint=summary["fingerprint"],
            phantoms=summary["phantoms"],
            card=card,
            gallery=_gallery(lungs.load(network), records),
        )
        with write_aside(output) as aside:
            aside.mkdir()
            for name in (SEGMENTER, SEGMENTER_CARD):
                shutil.copyfile(network / name, aside / name)
            write_text(aside / LUNGS_PAGE, page)
    return card


def _network(covid_directory: Path, examples: Path, home: Path, seed: int) -> Path:
    """Returns the directory below `home` with the network of these masks, and trains it if it is missing."""
    table = read_table(examples / EXAMPLES)
    table = table[table["source"] == covid_chestxray.NAME].sort_values("path")
    masks = _readable(covid_chestxray.masks(covid_directory, table["path"]))
    table = table[table["path"].isin(masks)]
    counts = {split: int((table["split"] == split).sum()) for split in (TRAIN, VALIDATION, TEST)}
    fewest = covid_chestxray.FEWEST_MASKS
    if any(count < least for count, least in zip(counts.values(), fewest, strict=True)):
        raise UserError(
            f"find_lungs: {covid_directory / covid_chestxray.MASKS} has masks of {counts[TRAIN]} training, "
            f"{counts[VALIDATION]} validation and {counts[TEST]} test images; at least "
            f"{fewest[0]}, {fewest[1]} and {fewest[2]} are needed. They are part of the dataset: "
            f"{covid_chestxray.WHERE_TO_GET_IT}."
        )
    digests = [sha256_of(masks[path]) for path in table["path"]]
    network = home / keeping.name(
        "lungs", table[["sha256", "split"]].values.tolist(), digests, seed
    )
    if network.is_dir():
        logger.info("the lung segmenter of these %d masks exists already", len(table))
        return network

    def pairs(split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and masks of a split."""
        paths = table.loc[table["split"] == split, "path"]
        read = []
        with Progress(f"{split} images with masks read", len(paths)) as progress:
            for path in paths:
                content, _ = decoded((covid_directory / path).read_bytes())
                read.append((lungs.shown(content), _mask(masks[path], lungs.SIDE)))
                progress.advance()
        images, masked = zip(*read, strict=True)
        return np.stack(images), np.stack(masked)

    logger.info("training the lung segmenter on %d masks", counts[TRAIN])
    model = lungs.build(seed)
    validation = lungs.train(model, pairs(TRAIN), pairs(VALIDATION), seed)
    tested = table.loc[table["split"] == TEST, "path"]
    predicted = lungs.find(model, pairs(TEST)[0], (_JUDGED_SIDE, _JUDGED_SIDE))
    dices = [
        float(lungs.dice(_mask(masks[path], _JUDGED_SIDE)[np.newaxis], mask[tf.newaxis]))
        for path, mask in zip(tested, predicted, strict=True)
    ]
    card = {
        "dice": float(np.mean(dices)),
        "worst": float(min(dices)),
        "trained_on": counts[TRAIN],
        "watched": counts[VALIDATION],
        "tested_on": counts[TEST],
        "validation": validation,
        "seed": seed,
    }
    with write_aside(network) as aside:
        aside.mkdir()
        model.save(aside / SEGMENTER)
        write_json(aside / SEGMENTER_CARD, card)
    logger.info(
        "lung segmenter: Dice coefficient %.3f on %d test masks", card["dice"], card["tested_on"]
    )
    return network


def _readable(masks: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the readable masks; a warning says why each other one cannot be read.

    Raises:
      UserError: the object store cannot be reached.
    """
    good = {}
    for path, file in masks.items():
        try:
            decoded(content_of(file))
        except BadImage as error:
            logger.warning("%s cannot be read and is left out: %s", file, error)
        else:
            good[path] = file
    return good


def _mask(file: Path, side: int) -> np.ndarray:
    return (lungs.shown(decoded(file.read_bytes())[0], side) > 127).astype(np.float32)


def _gallery(model: Any, records: Path) -> list[dict[str, str]]:
    """Returns some test images of each source, with the outline of the lungs."""
    manifest = data.read_manifest(records)
    recipe = next(iter(RECIPES.values()))  # has all four labels
    chosen: dict[str, list[tuple[str, bytes]]] = {}
    for content, _, identity in data.encoded_images(
        records, manifest, recipe, [TEST]
    ).as_numpy_iterator():
        of_source = chosen.setdefault(identity.decode().partition("/")[0], [])
        if len(of_source) < _SHOWN:
            of_source.append((identity.decode(), content))
    rows = []
    for source, of_source in sorted(chosen.items()):
        for identity, content in of_source[: max(1, _SHOWN // len(chosen))]:
            pixels = lungs.shown(content, _SHOWN_SIDE)
            mask = lungs.find(model, pixels[np.newaxis])[0].numpy()
            eroded = -tf.nn.max_pool2d(-mask[np.newaxis], 5, 1, "SAME")[0].numpy()
            outline = (mask - eroded) > 0
            colour = np.where(outline, np.array([255, 176, 0], np.float32), pixels)
            picture = Image.fromarray(colour.clip(0, 255).astype(np.uint8))
            rows.append({"id": identity, "source": source, "picture": pages.image_uri(picture)})
    return rows
