"""Reads CSV files as spreadsheets write them, whatever their encoding, separator and line ends."""

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.locations import is_remote

_SEPARATORS = (",", ";", "\t")
_FALLBACK = "cxrflow-cp1252"


@dataclass(frozen=True, kw_only=True)
class CsvFile:
    """What a CSV file holds.

    Attributes:
      columns: in the file's order, in lower case, with underscores for blanks; one may be empty.
      rows: of each row that is not blank the number of its first line, counted from 1, and its values by
        column, without surrounding blanks. Values beyond the header are dropped.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]


def read_csv(source: str, file: Path) -> CsvFile:
    """Reads a CSV file.

    UTF-8 with or without a byte order mark and UTF-16 are read; single bytes that are not UTF-8 are taken
    for Windows-1252, which spreadsheets write in Western Europe. Values are separated by commas, semicolons
    or tabs, whichever the header has most of. A first line `sep=;` is skipped.

    Args:
      source: the source's name, for errors.
      file: on this machine or in an object store.

    Raises:
      UserError: the file is not there or cannot be read, or a quote is never closed, which would swallow
        every row after it.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{source}: there is no {file}") from error
    except OSError as error:
        if is_remote(file):
            raise
        raise UserError(f"{source}: {file} cannot be read: {error.strerror}") from error
    # A line ends where a CSV's does, not where `str.splitlines` sees an end.
    lines = list(io.StringIO(_decoded(content), newline=""))
    first = 1 if lines and lines[0].lower().startswith("sep=") else 0
    # By default a longer value is an error.
    csv.field_size_limit(max(csv.field_size_limit(), len(content) + 1))
    header = lines[first : first + 1]
    separator = max(
        _SEPARATORS,
        key=lambda separator: max(map(len, csv.reader(header, delimiter=separator)), default=0),
    )
    records, begins = [], first + 1
    reader = csv.reader(lines[first:], delimiter=separator)
    for values in reader:
        records.append((begins, [value.strip() for value in values]))
        begins = first + reader.line_num + 1
    if not records:
        return CsvFile(columns=[], rows=[])
    _require_closed_quote(source, file, lines, records[-1][0], separator)
    columns = [name.lower().replace(" ", "_") for name in records[0][1]]
    rows = [
        (number, dict(zip(columns, values, strict=False)))
        for number, values in records[1:]
        if any(values)
    ]
    return CsvFile(columns=columns, rows=rows)


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    # Without a byte order mark a header's first letter tells, which is one of ASCII.
    if content[1:2] == b"\0":
        return content.decode("utf-16-le", errors="replace")
    if content[:1] == b"\0":
        return content.decode("utf-16-be", errors="replace")
    return content.decode("utf-8-sig", errors=_FALLBACK)


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    odd = error.object[error.start : error.end]
    return odd.decode("cp1252", errors="replace"), error.end


codecs.register_error(_FALLBACK, _as_cp1252)


def _require_closed_quote(
    source: str, file: Path, lines: list[str], last: int, separator: str
) -> None:
    try:
        for _ in csv.reader(lines[last - 1 :], delimiter=separator, strict=True):
            pass
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(
                f"{source}: {file}, line {last}: a quote is opened and never closed; close it, or double "
                'it where it is meant: ""'
            ) from error
