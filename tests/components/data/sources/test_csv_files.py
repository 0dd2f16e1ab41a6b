import codecs
import csv
import io
from pathlib import Path

import pytest

from components.data.sources.csv_files import read_csv
from core.errors import UserError

ROWS = [
    ["Patientid", "finding", "clinical notes"],
    ["1", "COVID-19", "fièvre, then; worse\ton day 2"],
    ["2", "No Finding", 'says "well"\nsecond line'],
    ["", "", ""],
    ["3", "SARS", " x\u2028y "],
]


def text_of(separator: str = ",", line_end: str = "\r\n") -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator, lineterminator=line_end).writerows(ROWS)
    return buffer.getvalue()


def content(encoding: str, separator: str, line_end: str) -> bytes:
    return text_of(separator, line_end).encode(encoding)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_way_of_a_spreadsheet_reads_the_same(
    tmp_path: Path, encoding: str, separator: str, line_end: str
) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(content(encoding, separator, line_end))
    found = read_csv("clinic", file)
    assert found.columns == ["patientid", "finding", "clinical_notes"]
    assert [number for number, _ in found.rows] == [2, 3, 6]
    notes = [fields["clinical_notes"] for _, fields in found.rows]
    assert notes == ["fièvre, then; worse\ton day 2", 'says "well"\nsecond line', "x\u2028y"]


def test_single_bytes_of_windows_are_read_beside_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes("path,note\nzoë.png,".encode() + "fièvre – 39°\n".encode("cp1252"))
    assert read_csv("clinic", file).rows == [(2, {"path": "zoë.png", "note": "fièvre – 39°"})]


def test_a_value_may_be_longer_than_the_readers_limit(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    long = "x" * 2 * csv.field_size_limit()
    file.write_text(f"path,note\na.png,{long}\n")
    assert read_csv("clinic", file).rows[0][1]["note"] == long


def test_a_line_that_names_the_separator_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(codecs.BOM_UTF8 + b"sep=;\r\npath;label\r\na.png;covid\r\n")
    assert read_csv("clinic", file).rows == [(3, {"path": "a.png", "label": "covid"})]


def test_a_quote_that_is_never_closed_swallows_no_row_unseen(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('path,note\na.png,fine\nb.png,"open\nc.png,gone\n')
    with pytest.raises(UserError, match=r"x\.csv, line 3: a quote is opened and never closed"):
        read_csv("clinic", file)
    file.write_text('path,note\na.png,5" tube\nb.png,"a"b\n')
    assert len(read_csv("clinic", file).rows) == 2


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clinic: there is no"):
        read_csv("clinic", tmp_path / "no.csv")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_csv("clinic", tmp_path)


def test_an_empty_file_has_neither_columns_nor_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").touch()
    found = read_csv("clinic", tmp_path / "x.csv")
    assert (found.columns, found.rows) == ([], [])
