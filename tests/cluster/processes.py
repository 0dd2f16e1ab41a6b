"""Programs that a test starts and leaves: they end with the process namespace, see `run`."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.2
_LINES = 30


@dataclass(frozen=True)
class Process:
    """A program that runs, and the file that has what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def trouble(self) -> str:
        """Returns the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LINES:])

    def until(self, found: Callable[[], T | None], what: str, seconds: float = 120) -> T:
        """Waits until `found` returns something; fails with the log if the program ends first."""

        def look() -> T | None:
            assert self.process.poll() is None, f"{self.log.stem} ended:\n{self.trouble()}"
            return found()

        try:
            return until(look, what, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the log of {self.log.stem}:\n{self.trouble()}") from None


def start(
    command: Sequence[str | Path], logs: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Starts a program, whose log has the program's name."""
    log = logs / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    return Process(process, log)


def until(found: Callable[[], T | None], what: str, seconds: float = 120) -> T:
    """Returns what `found` returns as soon as that is something.

    Raises:
      TimeoutError: it was nothing for that long.
    """
    end = time.monotonic() + seconds
    while True:
        result = found()
        if result:
            return result
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(_POLL_SECONDS)
