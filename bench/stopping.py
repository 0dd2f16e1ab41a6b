"""Measures how long commands, and all that they have started, live on after a signal."""

import itertools
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.data import phantoms
from components.data.sources import covid_chestxray, kermany
from tests.processes import CODES, PROGRAM, Started

# In seconds; see docs/operating.md.
MOST = 5


def stopping(home: Path) -> Iterator[str]:
    """Yields the seconds for several commands and moments; SIGINT and SIGTERM take turns.

    Args:
      home: the directory for all output.

    Raises:
      AssertionError: a command ended before the moment came, had another exit code, or left a process.
    """
    data, output = home / "data", home / "output"
    phantoms.write(data)
    given = (
        "--covid", data / covid_chestxray.DIRECTORY, "--kermany", data / kermany.DIRECTORY,
        "--output", output,
    )  # fmt: skip
    run = (PROGRAM, "run", "--quick", "--recipes", "cnn-dubey", *given)
    reproduce = (PROGRAM, "reproduce", "cnn-dubey", "--folds", "2", *given)
    signals = itertools.cycle(CODES)
    # What the command has printed, and what it has started, when the signal comes.
    for said, process in (
        ("ingest", "ephemeral_component"),
        ("validate", "tfdv.py"),
        ("training the lung segmenter", ""),
        ("from scratch", ""),
        ("deploy", "serving.server"),
    ):
        yield stopped("run", run, said, process, next(signals), home)
    Started.begin((*run, "--no-serve"), home).ends_well()
    version = output / "store" / "cxrflow" / "1"
    for name, command, said, process in (
        ("deploy --check", (PROGRAM, "deploy", version, "--check"), "", "serving.server"),
        ("reproduce", reproduce, "from scratch", ""),
        ("make demo", (sys.executable, "-m", "bench.demo", home / "demo"), "from scratch", ""),
        (
            "make growth-demo",
            (sys.executable, "-m", "bench.growth", home / "growth"),
            "from scratch",
            "",
        ),
    ):
        yield stopped(name, command, said, process, next(signals), home)


def stopped(
    name: str,
    command: Sequence[object],
    said: str,
    process: str,
    number: signal.Signals,
    home: Path,
) -> str:
    """Starts a command, sends it a signal at its moment, and returns how long its end took."""
    started = Started.begin(command, home)
    try:
        started.until(lambda: said in started.said() and (not process or started.alive(process)))
        began = time.monotonic()
        started.send(number)
        started.ends(number)
        seconds = time.monotonic() - began
    finally:
        started.kill()
    moment = " and ".join(filter(None, (said, process)))
    return f"[bold]{seconds:6.2f}[/]  seconds: {name}, {number.name} at {moment!r} (wanted: at most {MOST})"
