import os
from pathlib import Path

import pytest

from components.data.sources.kermany import read
from core.errors import UserError


def make(directory: Path, *paths: str) -> None:
    for path in paths:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).touch()


def test_label_patient_and_folder_come_from_the_path(tmp_path: Path) -> None:
    make(
        tmp_path,
        "train/NORMAL/IM-0115-0001.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001-0002.jpeg",
        "test/PNEUMONIA/person1_virus_6.jpeg",
        "train/PNEUMONIA/person78_bacteria_378.jpeg",
    )
    found = {row.path: (row.label, row.patient, row.folder_split) for row in read(tmp_path)}
    assert found == {
        "train/NORMAL/IM-0115-0001.jpeg": ("normal", "kermany/IM-0115", "train"),
        "val/NORMAL/NORMAL2-IM-1427-0001-0002.jpeg": ("normal", "kermany/NORMAL2-IM-1427", "val"),
        "test/PNEUMONIA/person1_virus_6.jpeg": ("viral", "kermany/person1", "test"),
        "train/PNEUMONIA/person78_bacteria_378.jpeg": ("bacterial", "kermany/person78", "train"),
    }


def test_a_strange_name_is_left_out_and_a_hidden_file_ignored(tmp_path: Path) -> None:
    make(tmp_path, "train/PNEUMONIA/scan.jpeg", "train/NORMAL/.DS_Store")
    (row,) = read(tmp_path)
    assert row.label is None
    assert "does not say" in row.excluded


@pytest.mark.parametrize("directory", ["missing", "empty"])
def test_a_missing_or_empty_directory_says_where_to_get_it(tmp_path: Path, directory: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"train/NORMAL.*mendeley"):
        list(read(tmp_path / directory))


def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"train/PNEUMONIA/M\xfcller.jpeg"))
    with pytest.raises(UserError, match=r"'M\\udcfcller.jpeg' is not UTF-8; rename it"):
        list(read(tmp_path))
