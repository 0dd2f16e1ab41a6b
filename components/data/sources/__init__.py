"""The sources of images. Each module's `read` yields a `Row` for each image of its source.

To add a published dataset, add a module here and call it in `components/data/named_images.py`. Users give
any other source on the command line: see `listed`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from core.labels import NOT_LABELLED

# What spreadsheets and people write for an unknown value, in lower case.
_UNKNOWN = frozenset("|nan|n/a|#n/a|na|null|none|unknown|?|-".split("|"))
_DISAGREE = "two rows disagree"
# Large numbers as spreadsheets shorten them; with a longer exponent it is not an id.
_SCIENTIFIC = re.compile(r"\d([.,]\d+)?e\+?\d{1,2}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """An image as its source describes it, before its file is opened.

    Attributes:
      source: the source's name, e.g. `kermany`.
      path: the file's path relative to the source's directory, with forward slashes.
      finding: in the source's words.
      label: one of `core.labels.LABELS`, or None if the finding maps to none of them.
      excluded: why the image must not be used; empty if it may be used.
      patient: identifies the patient across sources: `<source>/<the source's id>`.
      origin: the site or publication where the source got the image; empty if unknown.
      view: projection, e.g. `PA`, `AP Supine`, `L`; empty if unknown.
      sex: `M`, `F` or None.
      age: in years, or None.
      offset: days since onset of symptoms or hospitalisation (it may be negative), or None.
      folder_split: the split of the source's own folders, or empty. It is never used to split, only to
        report how many patients it would leak.
    """

    source: str
    path: str
    finding: str
    label: str | None
    excluded: str = ""
    patient: str
    origin: str = ""
    view: str = ""
    sex: str | None = None
    age: float | None = None
    offset: float | None = None
    folder_split: str = ""

    @property
    def finding_is_known(self) -> bool:
        """Whether it is known what is seen, be it one of the labels or not."""
        return self.excluded != NOT_LABELLED and not self.excluded.startswith(_DISAGREE)


def known(text: str) -> str:
    """Returns a value without surrounding blanks; empty if it stands for an unknown value."""
    text = unicodedata.normalize("NFKC", text).strip()
    return "" if text.lower() in _UNKNOWN else text


def is_of_view(view: str, views: Collection[str]) -> bool:
    """Returns whether an image may be of one of the projections; letter case does not matter.

    Args:
      view: the image's; empty if unknown.
      views: the projections; empty for all.
    """
    return not view or not views or view.lower() in {name.lower() for name in views}


def patient_id(text: str) -> str:
    """Returns a patient's id in a normal form, because spreadsheets change how ids are written.

    Letter case, surrounding blanks, leading zeros and empty decimal places do not matter: `0313`, `313.0` and
    `3.13E+02` are `313`. If two patients get the same id, they merely share a split; but if a patient
    kept two ids, both training and test could have images of this patient.

    Args:
      text: as the source writes it.

    Returns:
      the id; empty if it is unknown.
    """
    text = known(text).lower()
    number = re.fullmatch(r"0*(\d+)([.,]0*)?", text)
    if number:
        return number[1]
    if _SCIENTIFIC.fullmatch(text):
        value = Decimal(text.replace(",", "."))
        if value == value.to_integral_value():
            return str(int(value))
    return text


def merged(rows: Iterable[Row]) -> list[Row]:
    """Returns one row for each file of a source, and one id for each patient.

    A file that several rows name is kept once if they agree on its label, and excluded otherwise. If these
    rows have different patients, they are the same patient: all of the source's rows get the first one's id.

    Args:
      rows: of one source, in its order.
    """
    by_path: dict[str, Row] = {}
    same: dict[str, str] = {}

    def first_id(patient: str) -> str:
        while patient in same:
            patient = same[patient]
        return patient

    for row in rows:
        earlier = by_path.setdefault(row.path, row)
        first, second = first_id(earlier.patient), first_id(row.patient)
        if first != second:
            same[second] = first
        if earlier.label != row.label:
            reason = f"{_DISAGREE}: {earlier.finding!r} and {row.finding!r}"
            by_path[row.path] = replace(earlier, label=None, excluded=reason)
        elif earlier.excluded and not row.excluded:
            by_path[row.path] = row
    return [replace(row, patient=first_id(row.patient)) for row in by_path.values()]
