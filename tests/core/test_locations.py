"""What is found below a directory, whatever lies in it."""

import os
from pathlib import Path

import pytest

from core.errors import UserError
from core.locations import sizes


def test_links_to_nothing_and_to_themselves_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "image.png").write_bytes(b"12345")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "nothing.png").symlink_to(tmp_path / "gone.png")
    assert sizes(tmp_path) == {"a/image.png": 5}


def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"M\xfcller.png")).touch()
    with pytest.raises(UserError, match=r"'M\\udcfcller.png' is not UTF-8; rename it"):
        sizes(tmp_path)
