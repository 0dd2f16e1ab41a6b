"""Validates the rows of a CSV of images; see `components.data.sources.listed`."""

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from components.data.sources import known, patient_id
from core.locations import is_remote

_SEXES = {"male": "M", "female": "F", "o": None, "x": None, "other": None, "": None}


class CsvRow(BaseModel):
    """A row of a CSV of images. Its context has the CSV's `directory`, and whether it is `to_train_on`.

    Attributes:
      path: of the image, relative to the CSV's directory; an absolute path below it is accepted, too.
      label: one of the four labels, or a finding.
      patient: see `sources.patient_id`; empty if unknown, which is an error in a source to train on.
      view: projection, or empty.
      age: in years, in 0..150, or None.
      sex: `M`, `F` or None.
      place: where the image is from, or empty.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    label: str
    patient: Annotated[str, AfterValidator(patient_id)] = Field(default="", validate_default=True)
    view: Annotated[str, BeforeValidator(known)] = ""
    age: Annotated[
        float | None, BeforeValidator(lambda text: known(text).replace(",", ".") or None)
    ] = Field(default=None, ge=0, le=150)
    sex: Annotated[
        Literal["M", "F"] | None,
        BeforeValidator(lambda text: _SEXES.get(known(text).lower(), known(text).upper())),
    ] = None
    place: Annotated[str, BeforeValidator(known)] = ""

    @field_validator("path")
    @classmethod
    def _below(cls, text: str, info: ValidationInfo) -> str:
        assert info.context
        directory = info.context["directory"]
        path = relative_path(text, directory)
        if path is None:
            raise ValueError(f"expected the path of an image below {directory}")
        return path

    @field_validator("patient")
    @classmethod
    def _known(cls, patient: str, info: ValidationInfo) -> str:
        assert info.context
        if info.context["to_train_on"] and not patient:
            raise ValueError("expected the patient's id")
        return patient


def row_of(fields: Mapping[str, str], directory: Path, *, to_train_on: bool) -> CsvRow:
    """Reads a row.

    Args:
      fields: its values by column.
      directory: of the CSV.
      to_train_on: whether the patient must be known.

    Raises:
      ValueError: a value cannot be used; the message names the column, the value and what was expected.
    """
    try:
        return CsvRow.model_validate(
            fields, context={"directory": directory, "to_train_on": to_train_on}
        )
    except ValidationError as error:
        raise ValueError(_described(error.errors()[0])) from error


def _described(error: Any) -> str:
    """Returns pydantic's error in words: the column, its value and what was expected."""
    column = error["loc"][0]
    if error["type"] == "missing":
        return f"column {column}: the row ends before it"
    expected = {
        "age": "expected a number of years from 0 to 150",
        "sex": "expected M or F",
    }.get(column, error["msg"].removeprefix("Value error, "))
    held = repr(error["input"]) if error["input"] else "empty"
    return f"column {column}: {held}, {expected}"


def relative_path(text: str, directory: Path) -> str | None:
    """Returns a path relative to a directory, as in `locations.sizes`; None if it is not below the directory.

    Args:
      text: relative to the directory or absolute, also as Windows writes it.
      directory: on this machine or in an object store.
    """
    text = text.replace("\\", "/")
    if is_remote(text) or is_remote(directory):
        paths = [text.removeprefix(f"{directory}/")]
    elif text.startswith("/"):
        # Either may contain links.
        files = (Path(text), Path(text).parent.resolve() / Path(text).name)
        paths = [
            os.path.relpath(file, root)
            for root in (directory, directory.resolve())
            for file in files
        ]
    else:
        paths = [text]
    for path in map(posixpath.normpath, paths):
        first = path.partition("/")[0]
        if first not in ("", ".", "..") and not re.fullmatch(r"\w+:", first):
            return path
    return None
