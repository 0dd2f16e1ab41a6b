r"""Reads a further source that a user gives as `NAME=SPEC`: a CSV that lists images, or a folder per finding.

    nih=data/nih,patient=(\d+)_       folders No_finding/, Pneumonia/, …; the pattern finds the patient
    clinic=data/clinic/images.csv     columns path, label, patient, and optionally view, age, sex, place

The two published datasets have hardly any images of adults without COVID, so such a source helps most: see
`docs/trust.md`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.data.sources import Row, covid_chestxray, is_of_view, kermany, known, merged
from components.data.sources.csv_files import read_csv
from core.errors import UserError
from core.labels import LABELS, label_of
from core.locations import absolute, is_remote, location, reaching, sizes

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_NEEDED, _PATIENT = ("path", "label"), "patient"
_PATTERN = ",patient="
_ERRORS_SHOWN = 5
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A source that a user gives.

    Attributes:
      name: begins the ids of its images and patients; lower-case letters, digits and dashes.
      place: a CSV, whose paths are relative to its directory, or a directory with a folder for each finding.
      pattern: a regular expression for a directory's file names, whose group is the patient; empty if the
        patients are unknown.
    """

    name: str
    place: Path
    pattern: str = ""

    @property
    def directory(self) -> Path:
        """The directory that the paths of its images are relative to."""
        return self.place.parent if self.is_csv else self.place

    @property
    def is_csv(self) -> bool:
        """Whether a CSV lists its images."""
        return self.place.suffix.lower() == ".csv"


def parse(texts: Sequence[str]) -> dict[str, Listed]:
    """Parses the sources of a command line.

    Args:
      texts: each `NAME=SPEC`; see above.

    Returns:
      the sources by name.

    Raises:
      UserError: a text is not `NAME=SPEC`, or two sources have the same name.
    """
    sources: dict[str, Listed] = {}
    for text in texts:
        name, _, spec = text.partition("=")
        place, _, pattern = spec.partition(_PATTERN)
        if not place or not _NAME.fullmatch(name):
            raise UserError(
                f"source: {text!r} is not NAME=SPEC, with a name of lower-case letters, digits and "
                "dashes, and a CSV or a directory, e.g. nih=data/nih,patient=(\\d+)_"
            )
        if name in (*sources, covid_chestxray.NAME, kermany.NAME):
            raise UserError(f"source: the name {name!r} is already taken; choose another")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise UserError(
                f"source: {name}: {pattern!r} is not a regular expression: {error}"
            ) from error
        if pattern and groups != 1:
            raise UserError(
                f"source: {name}: {pattern!r} must have one group in brackets, for the patient"
            )
        sources[name] = Listed(name=name, place=location(place), pattern=pattern)
    return sources


def absolute_spec(text: str) -> str:
    """Returns `NAME=SPEC` with an absolute path, which is valid in every step."""
    name, _, spec = text.partition("=")
    place, comma, pattern = spec.partition(_PATTERN)
    return f"{name}={absolute(place)}{comma}{pattern}" if place else text


def read(source: Listed, views: Sequence[str] = (), *, to_train_on: bool = False) -> Iterator[Row]:
    """Yields a row for each image of a source, once for each file; see `sources.merged`.

    Args:
      source: see `Listed`.
      views: the projections to keep, of images whose view is known; empty for all.
      to_train_on: whether patients must be known, because images are split by patient.

    Raises:
      UserError: the place does not exist, a column is missing, rows cannot be used (the message lists the
        first ones), the pattern does not find the patient in a file name, or patients are unknown although
        they must be known.
    """
    if source.is_csv:
        yield from merged(_of_csv(source, views, to_train_on))
    else:
        yield from _of_folders(source, to_train_on)


def require_images(source: Listed, *, to_train_on: bool) -> None:
    """Checks that a source can be read, and that an image of it can be used.

    Args:
      source, to_train_on: see `read`.

    Raises:
      UserError: see `read`; or no image is there, or of none the finding is known.
    """
    with reaching(source.place):
        rows = list(read(source, to_train_on=to_train_on))
        there = {row.path for row in rows}
        if not is_remote(source.directory):
            there &= sizes(source.directory).keys()
    if not there:
        raise UserError(
            f"{source.name}: none of the {len(rows)} images that {source.place} names is in "
            f"{source.directory}"
        )
    if not any(row.finding_is_known for row in rows if row.path in there):
        raise UserError(
            f"{source.name}: no image in {source.place} has a known finding; name it in the column label, "
            "or in the folder's name"
        )


def _of_csv(source: Listed, views: Sequence[str], to_train_on: bool) -> Iterator[Row]:
    # Imported here, because only CSVs need pydantic.
    from components.data.sources.csv_rows import row_of

    table = read_csv(source.name, source.place)
    missing = [name for name in _NEEDED if name not in table.columns]
    if missing:
        raise UserError(
            f"{source.name}: {source.place} has no column {', '.join(missing)}; it has "
            f"{', '.join(table.columns) or 'none'}. "
            "Columns are path, label, patient, view, age, sex and place."
        )
    if to_train_on and _PATIENT not in table.columns:
        raise _without_patients(source)
    read, errors = [], []
    for number, fields in table.rows:
        try:
            read.append(row_of(fields, source.directory, to_train_on=to_train_on))
        except ValueError as error:
            errors.append(f"line {number}, {error}")
    if errors:
        what = f"{len(errors)} of {len(table.rows)} rows of {source.place} cannot be used"
        raise _listing(source, what, errors)
    for row in read:
        wanted = is_of_view(row.view, views)
        yield _row(
            source,
            row.path,
            row.label,
            row.patient,
            view=row.view,
            excluded="" if wanted else f"view {row.view!r} was not asked for",
            sex=row.sex,
            age=row.age,
            place=row.place,
        )


def _listing(source: Listed, what: str, errors: Sequence[str]) -> UserError:
    more = len(errors) - _ERRORS_SHOWN
    shown = "; ".join(errors[:_ERRORS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return UserError(f"{source.name}: {what}: {shown}")


def _of_folders(source: Listed, to_train_on: bool) -> Iterator[Row]:
    if to_train_on and not source.pattern:
        raise _without_patients(source)
    paths = sorted(
        path
        for path in sizes(source.place)
        if path.count("/") == 1 and path.lower().endswith(_IMAGES)
    )
    if not paths:
        raise UserError(
            f"{source.name}: {source.place} is not a CSV, and has no images in folders named after findings, "
            "such as No_finding/"
        )
    patients = {path: _patient_in(source.pattern, path) for path in paths}
    unknown = [path for path, patient in patients.items() if source.pattern and not patient]
    if unknown:
        where = f"{len(unknown)} of {len(paths)} file names"
        what = f"the pattern {source.pattern} does not find the patient in {where}"
        raise _listing(source, what, unknown)
    for path, patient in patients.items():
        yield _row(source, path, path.partition("/")[0].replace("_", " "), patient)


def _patient_in(pattern: str, path: str) -> str:
    match = re.search(pattern, path.rpartition("/")[2]) if pattern else None
    return (match[1] or "") if match else ""


def _row(
    source: Listed,
    path: str,
    finding: str,
    patient: str,
    *,
    view: str = "",
    excluded: str = "",
    sex: str | None = None,
    age: float | None = None,
    place: str = "",
) -> Row:
    label, reason = _label(finding)
    return Row(
        source=source.name,
        path=path,
        finding=finding,
        label=label,
        excluded=excluded or reason,
        patient=f"{source.name}/{patient or path}",
        origin=place,
        view=view,
        sex=sex,
        age=age,
    )


def _label(written: str) -> tuple[str | None, str]:
    finding = known(written)
    if finding.lower() in LABELS:
        return finding.lower(), ""
    return label_of(re.sub(r"(?i)findings$", "finding", finding))


def _without_patients(source: Listed) -> UserError:
    return UserError(
        f"{source.name}: patients must be known, or some could be in both training and test. Add a column "
        f"`patient`, or for a directory a pattern, `{source.name}={source.place}{_PATTERN}<pattern>`, e.g. "
        f"{_PATTERN[1:]}(\\d+)_ for 0001_02.png"
    )
