import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from core.files import alone, write_aside

HOLDER = """
import sys
from pathlib import Path
from core.files import alone
with alone(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Returns another process that is in, until its standard input is closed."""
    made = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert made.stdout
    assert made.stdout.readline() == "in\n"
    return made


@pytest.mark.parametrize("ending", ["well", "killed"])
def test_one_waits_for_another_says_so_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    other = holder(tmp_path / "shared")
    flock = fcntl.flock

    def until_it_waits(file: object, how: int) -> None:
        if how == fcntl.LOCK_EX:
            assert other.poll() is None
            if ending == "killed":
                os.kill(other.pid, signal.SIGKILL)
            other.communicate()
        flock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", until_it_waits)
    with alone(tmp_path / "shared"):
        assert other.poll() is not None
    assert f"another run is using {tmp_path / 'shared'}; waiting" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_is_in(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def go_in() -> None:
        for _ in range(20):
            with alone(tmp_path / "shared"):
                inside.append(1)
                time.sleep(0.001)  # lets in whoever is not kept out
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=go_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 160
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_locks_it_says_so_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with alone(tmp_path / "shared"):
        pass
    assert "cannot be locked" in capsys.readouterr().out


def test_a_directory_may_be_replaced_while_another_run_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "pages"
    replace = Path.replace

    def overtaken(aside: Path, path: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        target.mkdir(exist_ok=True)
        (target / "theirs").touch()
        return replace(aside, path)

    target.mkdir()
    monkeypatch.setattr(Path, "replace", overtaken)
    with write_aside(target) as aside:
        aside.mkdir()
        (aside / "ours").touch()
    assert [file.name for file in target.iterdir()] == ["ours"]
    assert list(tmp_path.iterdir()) == [target]


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
