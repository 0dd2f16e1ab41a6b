"""Lists the images that the sources name, before any image is opened."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from components.data.sources import Row, covid_chestxray, kermany, listed
from core.errors import UserError
from core.labels import LABELS
from core.locations import location, reaching, sizes


def named_images(
    directories: Mapping[str, Path],
    views: Sequence[str],
    others: Mapping[str, listed.Listed] | None = None,
) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """Returns the images that the sources name, with their metadata, and which files exist.

    Args:
      directories: of the two published sources, by their names.
      views: see `covid_chestxray.read`.
      others: further sources, by their names.

    Returns:
      a row for each image: the columns of `sources.Row`, `id`, and `size` in bytes, -1 if there is no such
      file; and by the source's name the sizes of its files (see `locations.sizes`).

    Raises:
      UserError: a source's directory is missing or empty, or cannot be read.
    """
    rows: list[Row] = []
    files = {}
    read = {
        covid_chestxray.NAME: lambda place: covid_chestxray.read(place, views),
        kermany.NAME: kermany.read,
    }
    for name, directory in directories.items():
        with reaching(directory):
            rows += read[name](directory)
            files[name] = sizes(directory)
    for name, source in (others or {}).items():
        with reaching(source.directory):
            rows += listed.read(source, views, to_train_on=True)
            files[name] = sizes(source.directory)
    named = pd.DataFrame(
        [{"id": f"{row.source}/{row.path}", **vars(row)} for row in rows],
        columns=["id", *(field.name for field in dataclasses.fields(Row))],
    )
    for column in ("origin", "view"):
        named[column] = named[column].replace("", None)
    named["size"] = [files[row.source].get(row.path, -1) for row in rows]
    return named, files


def require_every_label(labels: Iterable[str], counts: str) -> None:
    """Checks that usable images have every label.

    Args:
      labels: of the usable images.
      counts: a clause about how many images there are, for the error.

    Raises:
      UserError: a label has no image.
    """
    missing = sorted(set(LABELS) - set(labels))
    if missing:
        raise UserError(
            f"no usable image is labelled {', '.join(missing)}: {counts}. covid comes from "
            f"{covid_chestxray.WHERE_TO_GET_IT}, normal, bacterial and viral from "
            f"{kermany.WHERE_TO_GET_IT}. Are both complete?"
        )


def directories(
    covid_directory: str, kermany_directory: str, sources: Sequence[str]
) -> dict[str, Path]:
    """Returns where each source's images are, by the source's name.

    Args:
      covid_directory, kermany_directory: the two published datasets: directories or places.
      sources: further sources; see `listed.parse`.
    """
    return {
        covid_chestxray.NAME: location(covid_directory),
        kermany.NAME: location(kermany_directory),
        **{name: source.directory for name, source in listed.parse(sources).items()},
    }


def digest_of_names(named: pd.DataFrame) -> str:
    """Returns a digest of what the sources say about their images, as 64 hexadecimal digits."""
    return hashlib.sha256(named.sort_values("id").to_csv(index=False).encode()).hexdigest()
