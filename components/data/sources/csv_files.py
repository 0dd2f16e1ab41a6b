"""Reads CSV files that spreadsheets write, in any of their encodings, separators and line endings."""

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
    """The content of a CSV file.

    Attributes:
      columns: names in the file's order, in lower case, with underscores for blanks; a name may be empty.
      rows: for each row that is not blank, the number of its first line, counted from 1, and its values by
        column, without surrounding blanks. Values without a column are dropped.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]


def read_csv(source: str, file: Path) -> CsvFile:
    """Reads a CSV file.

    The encoding is UTF-8, with or without a byte order mark, or UTF-16; bytes that are not UTF-8 are read as
    Windows-1252, which spreadsheets in Western Europe write. The separator is a comma, a semicolon or a tab,
    whichever gives the header the most columns. A first line such as `sep=;` is skipped.

    Args:
      source: the source's name, for errors.
      file: on this machine or in an object store.

    Raises:
      UserError: the file does not exist or cannot be read, or a quote is never closed, which would swallow
        all rows after it.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{source}: there is no {file}") from error
    except OSError as error:
        if is_remote(file):
            raise
        raise UserError(f"{source}: {file} cannot be read: {error.strerror}") from error
    # Not `str.splitlines`, which knows more line endings than CSV has.
    lines = list(io.StringIO(_decoded(content), newline=""))
    first = 1 if lines and lines[0].lower().startswith("sep=") else 0
    # Otherwise a long value is an error.
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
    # Without a byte order mark, the first letter of the header tells: it is ASCII.
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
                'a quote that is part of a value: ""'
            ) from error
