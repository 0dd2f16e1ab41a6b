"""The datasets. Each module has one job: `read(directory)` yields a `Row` for each image it names.

Adding a published one is adding a module here and reading it in `components/named_images.py`; any other is
named by whoever runs: see `listed`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image as its source describes it, before the file has been opened.

    Attributes:
      source: the source's name, e.g. `kermany`.
      path: the file's path relative to the source's directory, with forward slashes.
      finding: what the source says is seen, in the source's words.
      label: one of `components.labels.LABELS`, or None where the finding maps to none of them.
      excluded: why the image must not be used; empty where it may be.
      patient: identifies the patient across sources: `<source>/<the source's id>`.
      origin: the site or publication that the source has the image from; empty where unknown.
      view: projection, e.g. `PA`, `AP Supine`, `L`; empty where unknown.
      sex: `M`, `F` or None.
      age: in years, or None.
      offset: days since onset of symptoms or hospitalisation (it may be negative), or None.
      folder_split: the split that the source's own folders suggest, or empty. Never used to split:
        reported, to say what it would have leaked.
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
