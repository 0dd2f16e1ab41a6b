r"""Any further source: a CSV that lists images, or folders by finding. A user names it as `NAME=SPEC`.

    nih=data/nih,patient=(\d+)_       folders No_finding/, Pneumonia/, …; the pattern finds the patient
    clinic=data/clinic/images.csv     columns path, label, patient, and if known view, age, sex

What is not covid from where adults are X-rayed is what the two published sources lack: see `docs/trust.md`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.labels import LABELS, label_of
from components.locations import absolute, location, sizes
from components.sources import Row, covid_chestxray, kermany

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_NEEDED, _PATIENT = ("path", "label"), "patient"
_PATTERN = ",patient="
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A source that a user names.

    Attributes:
      name: in ids and patients, lower-case letters, digits and dashes.
      place: a CSV, whose paths are relative to where it lies, or a directory with a folder for each
        finding.
      pattern: of a directory's file names, whose first group identifies the patient; empty where patients
        are not known.
    """

    name: str
    place: Path
    pattern: str = ""

    @property
    def directory(self) -> Path:
        """Where paths of its images begin."""
        return self.place.parent if self.is_csv else self.place

    @property
    def is_csv(self) -> bool:
        """Whether a CSV lists its images."""
        return self.place.suffix.lower() == ".csv"


def parse(texts: Sequence[str]) -> dict[str, Listed]:
    """Reads sources as written on a command line.

    Args:
      texts: each `NAME=SPEC`; see above.

    Returns:
      them by name.

    Raises:
      UserError: one cannot be read so, or two have the same name.
    """
    found: dict[str, Listed] = {}
    for text in texts:
        name, _, spec = text.partition("=")
        place, _, pattern = spec.partition(_PATTERN)
        if not place or not _NAME.fullmatch(name):
            raise UserError(
                f"source: {text!r} is not NAME=SPEC, with a name of lower-case letters, digits and "
                "dashes, and a CSV or a directory, e.g. nih=data/nih,patient=(\\d+)_"
            )
        if name in (*found, covid_chestxray.NAME, kermany.NAME):
            raise UserError(f"source: there is already one named {name!r}; name it otherwise")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise UserError(
                f"source: {name}: {pattern!r} is no regular expression: {error}"
            ) from error
        if pattern and groups != 1:
            raise UserError(
                f"source: {name}: {pattern!r} must have one group in brackets, the patient"
            )
        found[name] = Listed(name=name, place=location(place), pattern=pattern)
    return found


def absolute_spec(text: str) -> str:
    """Returns `NAME=SPEC` with its place as every step sees it."""
    name, _, spec = text.partition("=")
    place, comma, pattern = spec.partition(_PATTERN)
    return f"{name}={absolute(place)}{comma}{pattern}" if place else text


def read(source: Listed, views: Sequence[str] = (), *, to_train_on: bool = False) -> Iterator[Row]:
    """Yields a row for every image that is listed.

    Args:
      source: see `Listed`.
      views: the projections to keep of images whose view is said; empty for all.
      to_train_on: whether patients must be known, by whom images are split.

    Raises:
      UserError: there is no such place, a column is missing, a folder's file names say no patient, or
        nothing says the patients where they must be known.
    """
    if source.is_csv:
        yield from _of_csv(source, {view.lower() for view in views}, to_train_on)
    else:
        yield from _of_folders(source, to_train_on)


def _of_csv(source: Listed, views: set[str], to_train_on: bool) -> Iterator[Row]:
    import pandas as pd  # what most sources do not need, nor whoever only names them

    try:
        with source.place.open(encoding="utf-8-sig") as file:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(f"{source.name}: there is no {source.place}") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{source.name}: {source.place} is no CSV: {error}") from error
    table.columns = [str(column).strip().lower() for column in table.columns]
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise UserError(
            f"{source.name}: {source.place} has no column {', '.join(missing)}; it has "
            f"{', '.join(table.columns)}. It takes path, label, patient, and view, age, sex."
        )
    if to_train_on and _PATIENT not in table:
        raise _without_patients(source)
    for fields in table.to_dict("records"):
        view = fields.get("view", "").strip()
        unwanted = bool(view and views) and view.lower() not in views
        yield _row(
            source,
            fields["path"].strip(),
            fields["label"].strip(),
            fields.get(_PATIENT, "").strip(),
            view=view,
            excluded=f"view {view!r} was not asked for" if unwanted else "",
            sex=fields.get("sex", "").strip().upper(),
            age=fields.get("age", "").strip(),
        )


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
            f"{source.name}: {source.place} has no images in folders by finding, such as No_finding/, "
            "and is no CSV"
        )
    for path in paths:
        folder, _, name = path.partition("/")
        match = re.search(source.pattern, name) if source.pattern else None
        if source.pattern and not match:
            raise UserError(
                f"{source.name}: the name of {path} does not say the patient: the pattern "
                f"{source.pattern} does not fit it"
            )
        yield _row(source, path, folder.replace("_", " "), match[1] if match else "")


def _row(
    source: Listed,
    path: str,
    finding: str,
    patient: str,
    *,
    view: str = "",
    excluded: str = "",
    sex: str = "",
    age: str = "",
) -> Row:
    label, reason = _label(finding)
    return Row(
        source=source.name,
        path=path,
        finding=finding,
        label=label,
        excluded=excluded or reason,
        patient=f"{source.name}/{patient or path}",
        view=view,
        sex=sex if sex in ("M", "F") else None,
        age=float(age) if re.fullmatch(r"\d+(\.\d+)?", age) else None,
    )


def _label(finding: str) -> tuple[str | None, str]:
    if finding.lower() in LABELS:
        return finding.lower(), ""
    return label_of(re.sub(r"(?i)findings$", "finding", finding))


def _without_patients(source: Listed) -> UserError:
    return UserError(
        f"{source.name}: patients must be known, or some would be on both sides of the split. Give a column "
        f"`patient`, or of a directory `{source.name}={source.place}{_PATTERN}<pattern>`, e.g. "
        f"{_PATTERN[1:]}(\\d+)_ for 0001_02.png"
    )
