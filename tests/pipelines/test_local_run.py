import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from core.progress import LIVE, LIVE_PREFIX, PREFIX
from pipelines import local_run


class Status:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, text: object) -> None:
        self.shown.append(str(text))


def test_a_live_line_is_shown_beside_the_step_and_not_printed() -> None:
    log, screen, status = io.StringIO(), io.StringIO(), Status()
    listener = local_run._Listener(log, Console(file=screen, width=50), status, verbose=False)
    listener.write("Executing task 'train-step'\n")
    for text in (" 5 of 20 epochs [x]", " 6 of 20 epochs" + 30 * " and more", ""):
        listener.write(f"{LIVE_PREFIX}{text}\n")
    listener.write(f"{PREFIX}trained\n")
    whole, cut = status.shown[1:3]
    assert whole == "train: 5 of 20 epochs [x]"
    assert cut.startswith("train: 6 of 20 epochs and")
    assert len(cut) == 48, "it is one line"
    assert status.shown[3] == "train", "once all is done the step alone is shown"
    assert "epochs" not in screen.getvalue()
    assert "trained" in screen.getvalue()


def test_a_step_that_failed_is_said_before_the_steps_that_still_run() -> None:
    screen = io.StringIO()
    listener = local_run._Listener(io.StringIO(), Console(file=screen), Status(), verbose=False)
    listener.write("Executing task 'train-step'\n  ValueError: caught, and the step ends well\n")
    listener.write("Task 'train-step' finished with status SUCCESS\n")
    listener.write("Executing task 'train-step'\n  core.errors.UserError: weights: none\n")
    assert "failed" not in screen.getvalue()
    listener.write("Task 'train-step' finished with status FAILURE\n")
    for _ in range(2):
        listener.write("Executing task 'train-step'\n")
    assert screen.getvalue().count("failed: weights: none") == 1
    listener.write("Task 'train-step' finished with status FAILURE\n")
    assert listener.reason == "train: it ended without a message; was it killed?"


def test_warnings_of_packages_go_to_the_log_also_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "_run", lambda *_: sys.stderr.write("a warning\n"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    screen = io.StringIO()
    done = local_run.run(
        lambda: None, {}, tmp_path, Console(file=screen, force_terminal=True), verbose=False
    )
    assert "a warning" not in screen.getvalue()
    assert "a warning" in done.log.read_text()


@pytest.mark.parametrize("terminal", [True, False])
def test_steps_are_asked_for_a_live_line_in_a_terminal_alone(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(local_run, "_run", lambda *_: asked.append(LIVE in os.environ))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    console = Console(file=io.StringIO(), force_terminal=terminal)
    local_run.run(lambda: None, {}, tmp_path, console, verbose=False)
    assert asked == [terminal]
    assert LIVE not in os.environ
