"""Further public collections of radiographs of adults, each written as a CSV for `--source` or `--external`.

A collection is downloaded at a pinned commit of its repository; each file is checked against its digest
there. What the collections say of their images is written in the columns that `listed` reads.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.data.sources.csv_files import read_csv
from components.data.sources.fetch import GITHUB, GITHUB_FILES, Repository, fetch_repository
from core.errors import UserError
from core.files import write_text
from core.labels import COVID
from core.locations import sizes

LIST = "images.csv"
_COLUMNS = ("path", "label", "patient", "view", "age", "sex", "place")
# As the values of `--views`.
_VIEWS = {"ap": "AP", "ap erect": "AP", "pa": "PA"}

Fields = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Further:
    """A collection.

    Attributes:
      repository: at its pinned commit; its name is the source's.
      licence: in words.
      folder, metadata: of the repository, where the images and the table are.
      row: returns the values of `_COLUMNS` but the path from those of the metadata (empty where it does not
        name the image) and the image's name without its ending.
      key: returns the name of an image without its ending, from the values of the metadata.
    """

    repository: Repository
    licence: str
    folder: str
    metadata: str
    key: Callable[[Fields], str]
    row: Callable[[Fields, str], tuple[str, ...]]


def _cxnet(fields: Fields, stem: str) -> tuple[str, ...]:
    # All are of patients with covid; half of them are not in the table.
    return (
        fields.get("label", COVID),
        fields.get("patient_id") or f"file-{stem}",
        _VIEWS.get(fields.get("view", "").lower(), ""),
        fields.get("age", ""),
        fields.get("sex", ""),
        fields.get("location", ""),
    )


def _figure1(fields: Fields, stem: str) -> tuple[str, ...]:
    # Letters number the images of a patient. Where they are from is not said, so each patient is a place.
    patient = re.sub(r"[a-z]$", "", stem)
    age = re.search(r"\d+", fields.get("age", ""))  # `50+` is read as 50, `early 40s` as 40
    view = _VIEWS.get(fields.get("view", "").lower(), "")
    finding, sex = fields.get("finding", ""), fields.get("sex", "")
    return finding, patient, view, age[0] if age else "", sex, patient


def _actualmed(fields: Fields, stem: str) -> tuple[str, ...]:
    view = _VIEWS.get(fields.get("view", "").lower(), "")
    return fields.get("finding", ""), fields.get("patientid") or stem, view, "", "", ""


def _hannover(fields: Fields, stem: str) -> tuple[str, ...]:
    view = _VIEWS.get(fields.get("projection", "").lower(), "")
    patient = fields.get("patient_id") or stem
    return COVID, patient, view, fields.get("age", ""), fields.get("sex", ""), ""


_RESEARCH = "no licence is given; its README: for research purposes only"
COLLECTIONS = (
    Further(
        repository=Repository(
            name="covid-cxnet",
            path="armiro/COVID-CXNet",
            commit="3ade488b3828705706fc5f58c0667421d8b04a01",
            wanted=("chest_xray_images/", "metadata.csv", "README.md"),
        ),
        licence="CC BY 4.0 (Haghanifar et al., arXiv:2006.13807)",
        folder="chest_xray_images/covid19/",
        metadata="metadata.csv",
        key=lambda fields: PurePosixPath(fields.get("filename", "")).stem,
        row=_cxnet,
    ),
    Further(
        repository=Repository(
            name="figure1",
            path="agchung/Figure1-COVID-chestxray-dataset",
            commit="95bb569e55f4110d3b734c0f355340e04e16989a",
            wanted=("images/", "metadata.csv", "README.md"),
        ),
        licence=_RESEARCH,
        folder="images/",
        metadata="metadata.csv",
        key=lambda fields: fields.get("patientid", ""),
        row=_figure1,
    ),
    Further(
        repository=Repository(
            name="actualmed",
            path="agchung/Actualmed-COVID-chestxray-dataset",
            commit="27240dd8dec9454bc97f9f3c0c432ef434de2517",
            wanted=("images/", "metadata.csv", "README.md"),
        ),
        licence=_RESEARCH,
        folder="images/",
        metadata="metadata.csv",
        key=lambda fields: PurePosixPath(fields.get("imagename", "")).stem,
        row=_actualmed,
    ),
    Further(
        repository=Repository(
            name="hannover",
            path="ml-workgroup/covid-19-image-repository",
            commit="ad7ab099b425f16e06bba22322336b7d6a732965",
            wanted=("png/", "data.csv", "LICENSE", "readme.md"),
        ),
        licence="CC BY 3.0 (Winther et al., doi:10.6084/m9.figshare.12275009)",
        folder="png/",
        metadata="data.csv",
        key=lambda fields: fields.get("image_id", ""),
        row=_hannover,
    ),
)


def fetch_further(
    collection: Further, directory: Path, github: str = GITHUB, files: str = GITHUB_FILES
) -> Path:
    """Downloads a collection, and lists its images as `listed` reads them.

    Args:
      collection: one of `COLLECTIONS`.
      directory: gets a directory with the collection's name.
      github, files: see `fetch_repository`.

    Returns:
      the CSV, for `--source` or `--external`.

    Raises:
      UserError: it cannot be downloaded completely, or lists no image.
    """
    name = collection.repository.name
    target = directory / name
    fetch_repository(collection.repository, target, github, files)
    rows = list(_rows(collection, target))
    if not rows:
        raise UserError(f"{name}: {target / collection.folder} has no images")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    write_text(target / LIST, text.getvalue())
    return target / LIST


def _rows(collection: Further, directory: Path) -> Iterator[tuple[str, ...]]:
    table = read_csv(collection.repository.name, directory / collection.metadata)
    by_stem = {collection.key(fields): fields for _, fields in table.rows}
    for path in sorted(sizes(directory)):
        if path.startswith(collection.folder) and not PurePosixPath(path).name.startswith("."):
            stem = PurePosixPath(path).stem
            yield path, *collection.row(by_stem.get(stem, {}), stem)
