"""Tables are read as they were written, and not through Python's files."""

import builtins
from pathlib import Path

import pandas as pd
import pytest

from core.tables import read_table

TABLE = pd.DataFrame(
    {"id": ["a/1", "a/2"], "age": [41.0, None], "label": ["covid", None], "number": [1, 2]}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    TABLE.to_parquet(tmp_path / "table.parquet", index=False)
    return tmp_path / "table.parquet"


def test_a_table_is_as_it_was_written(file: Path) -> None:
    pd.testing.assert_frame_equal(read_table(file), TABLE)
    pd.testing.assert_frame_equal(read_table(file.read_bytes()), TABLE)
    assert list(read_table(file, columns=["label", "id"]).columns) == ["label", "id"]


def test_what_is_no_table_is_said(file: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        read_table(file.with_name("absent.parquet"))
    with pytest.raises(ValueError, match="Parquet"):
        read_table(b"something else")


def test_arrow_opens_the_file_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of Python's in the hands of Arrow's threads may abort the process when it ends."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("opened by Python")

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(AssertionError, match="opened by Python"):
        pd.read_parquet(file)
    assert len(read_table(file)) == len(TABLE)
