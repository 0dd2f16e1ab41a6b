"""Commands as real processes, with all that they start."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import tenacity

PROGRAM = str(Path(sys.executable).with_name("cxrflow"))
MARK = "CXRFLOW_TESTED"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Started:
    """A command in a process group of its own, as a terminal starts it."""

    process: subprocess.Popen
    mark: str
    directory: Path

    @classmethod
    def begin(cls, command: Iterable[object], directory: Path) -> "Started":
        """Starts a command; its output goes to files in a directory."""
        mark = uuid.uuid4().hex
        with (
            (directory / f"{mark}.out").open("w") as out,
            (directory / f"{mark}.err").open("w") as err,
        ):
            process = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, MARK: mark, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return cls(process, mark, directory)

    def said(self) -> str:
        return (self.directory / f"{self.mark}.out").read_text()

    def errors(self) -> str:
        return (self.directory / f"{self.mark}.err").read_text()

    def alive(self, words: str = "") -> list[psutil.Process]:
        """Returns the processes that the command has started, and itself, by words of their commands."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.environ().get(MARK) == self.mark
                    and process.status() != psutil.STATUS_ZOMBIE
                    and words in " ".join(process.cmdline())
                ):
                    found.append(process)
        return found

    def until(self, condition: Callable[[], object]) -> None:
        @tenacity.retry(
            retry=tenacity.retry_if_result(lambda met: not met),
            wait=tenacity.wait_fixed(0.02),
            stop=tenacity.stop_after_delay(400),
        )
        def look() -> object:
            assert self.process.poll() is None, self.said() + self.errors()
            return condition()

        look()

    def send(self, number: int) -> None:
        """Sends a signal: SIGINT to the whole group, as a terminal does, others as a supervisor does."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def ends(self, number: int) -> str:
        """Returns what it said on standard error once a signal has ended it and all it had started."""
        assert self.process.wait(20) == 128 + number, self.said() + self.errors()
        assert self.alive() == []
        assert "Traceback" not in self.said() + self.errors()
        return self.errors()

    def ends_well(self) -> str:
        assert self.process.wait(600) == 0, self.said() + self.errors()
        return self.said()

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        """Kills what is left of it."""
        for process in self.alive():
            process.kill()
        self.process.wait()
