"""What the surroundings of the lungs give away in the data, whatever a model looks at.

A linear classifier of small thumbnails says how well the frame alone, or the image with its lungs blanked,
tells covid from the rest, the sources from one another, and adults from children.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.data import splits
from components.data.shared_ground import ADULT, CHILD, age_groups
from components.data.sources import covid_chestxray
from core.images import BadImage, content_of, grey, opened
from core.labels import COVID
from core.locations import reaching
from core.progress import Progress
from training import intervals

FRAME, NO_LUNGS = "frame alone", "lungs blanked"

# Enough for an area within a few hundredths, in seconds.
_MOST_IMAGES = 1200
_SIDE = 32
_FRAME = 4  # pixels of a thumbnail: an eighth of each side
_FEWEST = 8
_FOLDS = 4
_AT_ONCE = 8
_MARGIN = ImageFilter.MaxFilter(3)


def surroundings(examples: pd.DataFrame, directories: Mapping[str, Path]) -> dict[str, Any]:
    """Returns what the surroundings of the lungs give away.

    Args:
      examples: with the columns `id`, `source`, `path`, `label`, `age` and those of `relatives.IDENTITY`.
      directories: where each source's images are, by the source's name. The lung masks are those of the
        covid-chestxray-dataset, so only its images are blanked.

    Returns:
      `images`, how many were looked at, `of` so many; `unread`, how many files could not be read now; and
      `rows`: `view`, `what`, numbers of `images` and `patients`, and `auc` (see `intervals.roc_auc`),
      cross-validated by patient. There is no row where a side has fewer than 8 images or 4 unrelated
      patients.
    """
    table = _sample(examples[examples["source"].isin(directories)])
    whole, blanked = _thumbnails(table, directories)
    rows = []
    for view, pictures in ((FRAME, _framed(whole)), (NO_LUNGS, blanked)):
        usable = ~np.isnan(pictures).any(axis=(1, 2))
        members = table[usable].reset_index(drop=True)
        pixels = pictures[usable].reshape(len(members), _SIDE**2)
        for what, asked, is_first in _questions(members):
            row = _separated(pixels[asked], members[asked], is_first[asked])
            if row:
                rows.append({"view": view, "what": what, **row})
    seen = int((~np.isnan(whole).any(axis=(1, 2))).sum())
    return {"images": seen, "of": len(examples), "unread": len(table) - seen, "rows": rows}


def _sample(examples: pd.DataFrame) -> pd.DataFrame:
    """Returns some images, as many of each source and label as there are, or an equal share."""
    order = pd.util.hash_array(examples["id"].to_numpy(dtype=object), categorize=False)
    kinds = [examples["source"], examples["label"]]
    rank = pd.Series(order, examples.index).groupby(kinds).rank(method="first")
    return examples[rank.rank(method="first") <= _MOST_IMAGES].reset_index(drop=True)


def _thumbnails(
    table: pd.DataFrame, directories: Mapping[str, Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, and with their lungs blanked, float32 [N, side, side]; NaN where there is none."""
    masks: dict[str, Path] = {}
    if covid_chestxray.NAME in directories:
        directory = directories[covid_chestxray.NAME]
        paths = table.loc[table["source"] == covid_chestxray.NAME, "path"]
        with reaching(directory):
            masks = covid_chestxray.masks(directory, paths)

    def read(source: str, path: str) -> tuple[np.ndarray, np.ndarray]:
        picture = _thumbnail(directories[source] / path)
        mask = masks.get(path) if source == covid_chestxray.NAME else None
        lungs = _thumbnail(mask) if mask else np.full_like(picture, np.nan)
        return picture, _without_lungs(picture, lungs)

    thumbnails = np.full((2, len(table), _SIDE, _SIDE), np.nan, np.float32)
    with ThreadPoolExecutor(_AT_ONCE) as pool, Progress("images shrunk", len(table)) as progress:
        for i, pair in enumerate(pool.map(read, table["source"], table["path"])):
            thumbnails[:, i] = pair
            progress.advance()
    return thumbnails[0], thumbnails[1]


def _thumbnail(file: Path) -> np.ndarray:
    """Returns an image file as float32 [side, side] in 0..1, NaN if it cannot be read."""
    try:
        with opened(content_of(file)) as image:
            image.draft(None, (2 * _SIDE, 2 * _SIDE))
            small = grey(image).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    except BadImage:  # it could be read at ingest
        return np.full((_SIDE, _SIDE), np.nan, np.float32)
    return np.asarray(small, np.float32) / 255


def _without_lungs(picture: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Returns a picture in which the lungs and a margin have the mean of the rest."""
    if np.isnan(lungs).any():
        return np.full_like(picture, np.nan)
    swollen = np.asarray(Image.fromarray((255 * lungs).astype(np.uint8)).filter(_MARGIN)) > 0
    if swollen.all():
        return np.full_like(picture, np.nan)
    return np.where(swollen, picture[~swollen].mean(), picture)


def _framed(pictures: np.ndarray) -> np.ndarray:
    """Returns pictures in which all but the frame is black."""
    framed = pictures.copy()
    inside = framed[:, _FRAME:-_FRAME, _FRAME:-_FRAME]
    inside[~np.isnan(inside)] = 0
    return framed


def _questions(table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields each question: its words, the images it is about, and which of them are on its first side."""
    everyone = np.ones(len(table), bool)
    yield f"{COVID} or another label", everyone, (table["label"] == COVID).to_numpy()
    sources = sorted(set(table["source"]))
    for source in sources if len(sources) > 2 else sources[:1]:
        yield f"source {source} or another", everyone, (table["source"] == source).to_numpy()
    group = age_groups(table)
    yield f"{ADULT} or {CHILD}", group.isin([ADULT, CHILD]).to_numpy(), (group == ADULT).to_numpy()


def _separated(
    pixels: np.ndarray, table: pd.DataFrame, is_first: np.ndarray
) -> dict[str, Any] | None:
    """Returns how well a classifier separates two sides; None if either has too few images."""
    if not len(table):
        return None
    related = splits.groups(table)
    for side in (is_first, ~is_first):
        # Every fold must have patients of both to learn from.
        if side.sum() < _FEWEST or len(np.unique(related[side])) < _FOLDS:
            return None
    linear = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.001, class_weight="balanced", max_iter=200)
    )
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    score = cross_val_predict(
        linear, pixels, is_first.astype(int), groups=related, cv=folds, method="decision_function"
    )
    return {
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "auc": intervals.roc_auc(is_first, score, related.astype(str)),
    }
