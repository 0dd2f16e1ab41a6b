"""COVID-19 and other pneumonias, collected from publications and hospitals.

Cohen, Morrison, Dao, Roth, Duong, Ghassemi: "COVID-19 Image Data Collection: Prospective
Predictions Are the Future", arXiv:2006.11988; the repository ieee8023/covid-chestxray-dataset. Each
image's licence is in the metadata. Mostly adults.

The user provides a clone of the repository: `metadata.csv` beside `images/`. The metadata has changed
often since March 2020, and people edit it in spreadsheets. So columns are found by name, regardless of
letter case and blanks, and only `patientid`, `finding`, `view`, `modality` and `filename` are required.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from components.data.sources import Row, merged, patient_id
from components.data.sources.csv_files import read_csv
from core.errors import UserError
from core.labels import label_of
from core.locations import names

NAME = "covid-chestxray"
DIRECTORY = "covid-chestxray-dataset"
WHERE_TO_GET_IT = "https://github.com/ieee8023/covid-chestxray-dataset"
FRONTAL_VIEWS = ("PA", "AP", "AP Supine", "AP semi erect")

# Lung masks of some images: `<the image's name without its ending>_mask.png`, white in the lungs, made by a
# model (Selvan et al., Lung Segmentation from Chest X-rays using Variational Data Imputation,
# arXiv:2005.10052) and checked by the dataset's authors.
MASKS = "annotations/lungVAE-masks"
# Masks needed for training, validation and test.
FEWEST_MASKS = (4, 1, 1)

_REQUIRED = ("patientid", "finding", "view", "modality", "filename")


def read(directory: Path, views: Sequence[str] = FRONTAL_VIEWS) -> Iterator[Row]:
    """Yields a row for every image that the metadata names, in the metadata's order.

    If an image is not an X-ray, has another view or none of the four labels, `excluded` has the reason. A
    file that two rows name is yielded once; see `sources.merged`. Images whose file is missing are yielded,
    too; opening them reveals that.

    Args:
      directory: of `metadata.csv` and `images/`.
      views: the projections to keep, as in the metadata; letter case does not matter.

    Raises:
      UserError: the directory, the metadata or a required column is missing, or the metadata cannot be
        read; see `csv_files.read_csv`.
    """
    metadata = directory / "metadata.csv"
    if not metadata.is_file():
        raise UserError(
            f"{NAME}: looked for metadata.csv in {directory}, found none. Get the dataset from "
            f"{WHERE_TO_GET_IT} and give the directory that holds metadata.csv."
        )
    wanted = {view.lower() for view in views}
    table = read_csv(NAME, metadata)
    missing = [name for name in _REQUIRED if name not in table.columns]
    if missing:
        raise UserError(
            f"{NAME}: {metadata} has no column {', '.join(missing)}; its columns are "
            f"{', '.join(name for name in table.columns if name) or 'none'}. Is it the dataset's own "
            "metadata.csv?"
        )
    yield from merged(_row(fields, wanted) for _, fields in table.rows if fields.get("filename"))


def _row(fields: dict[str, str], views: set[str]) -> Row:
    finding = fields.get("finding", "")
    modality, view = fields.get("modality", ""), fields.get("view", "")
    label, excluded = label_of(finding)
    if modality.lower() != "x-ray":
        excluded = f"modality {modality or 'unknown'!r} is no X-ray"
    elif view.lower() not in views:
        excluded = f"view {view or 'unknown'!r} was not asked for"
    filename = fields["filename"]
    patient = patient_id(fields.get("patientid", ""))
    sex = fields.get("sex", "").upper()
    return Row(
        source=NAME,
        path=posixpath.normpath(f"{fields.get('folder') or 'images'}/{filename}"),
        finding=finding,
        label=label,
        excluded=excluded,
        # Without an id, each image counts as its own patient.
        patient=f"{NAME}/{patient or filename}",
        origin=(urlparse(fields.get("url", "")).hostname or "").removeprefix("www."),
        view=view,
        sex=sex if sex in ("M", "F") else None,
        age=_number(fields.get("age", "")),
        offset=_number(fields.get("offset", "")),
    )


def _number(text: str) -> float | None:
    return float(text.replace(",", ".")) if re.fullmatch(r"-?\d+([.,]\d+)?", text) else None


def unnamed_files(files: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Returns the files in `images/` that no row names, sorted; the dataset has some.

    Args:
      files: paths of files, relative to the dataset's directory.
      paths: the paths that rows name.
    """
    named = set(paths)
    return sorted(
        path for path in files if path.startswith("images/") and path.count("/") == 1
        and path not in named
    )  # fmt: skip


def masks(directory: Path, paths: Iterable[str]) -> dict[str, Path]:
    """Returns the existing lung masks, by the path of their image.

    Args:
      directory: the dataset's.
      paths: of images, as in `Row`.
    """
    stems = {path: PurePosixPath(path).stem for path in paths}
    there = set(names(directory / MASKS))
    return {
        path: directory / MASKS / f"{stem}_mask.png"
        for path, stem in stems.items()
        if f"{stem}_mask.png" in there
    }


def columns(directory: Path) -> list[str]:
    """Returns the names of the metadata's columns, in lower case and with underscores for blanks."""
    return [name for name in read_csv(NAME, directory / "metadata.csv").columns if name]
