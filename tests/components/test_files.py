from pathlib import Path

import pytest

from components.files import write_aside


def interrupted(directory: Path) -> None:
    with write_aside(directory) as aside:
        aside.mkdir()
        raise KeyboardInterrupt


def test_a_directory_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "report"
    for content in ("first", "second"):
        with write_aside(directory) as aside:
            aside.mkdir()
            (aside / content).write_text(content)
        assert [entry.name for entry in directory.iterdir()] == [content]
    with pytest.raises(FileNotFoundError), write_aside(directory):
        pass  # nothing is made that could take its place
    assert (directory / "second").read_text() == "second"
    with pytest.raises(KeyboardInterrupt):
        interrupted(directory)
    assert (directory / "second").read_text() == "second"
    assert list(tmp_path.iterdir()) == [directory]
