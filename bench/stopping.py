"""Measures how long commands, and all that they have started, live on after a signal."""

import itertools
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.data import phantoms
from components.data.sources import covid_chestxray, kermany
from tests.processes import PROGRAM, SIGNALS, Started

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
    signals = itertools.cycle(SIGNALS)
    # When the signal comes, and how it is known: by what the command has printed and started.
    for moment, said, process in (
        ("in ingest", "ingest", "ephemeral_component"),
        ("in validate", "validate", "tfdv.py"),
        ("while the lung segmenter is trained", "training the lung segmenter", ""),
        ("while a model is trained", "from scratch", ""),
        ("while a server starts", "deploy", "serving.server"),
    ):
        yield stopped(f"run, {moment}", run, said, process, next(signals), home)
    with Started.begin((*run, "--no-serve"), home) as whole:
        whole.ends_well()
    version = output / "store" / "cxrflow" / "1"
    check = (PROGRAM, "deploy", version, "--check")
    yield stopped("deploy --check", check, "", "serving.server", next(signals), home)
    yield stopped("reproduce", reproduce, "from scratch", "", next(signals), home)
    for name in ("demo", "growth"):
        program = (sys.executable, "-m", f"bench.{name}", home / name)
        yield stopped(f"bench.{name}", program, "from scratch", "", next(signals), home)


def stopped(
    name: str,
    command: Sequence[object],
    said: str,
    process: str,
    number: signal.Signals,
    home: Path,
) -> str:
    """Starts a command, sends it a signal at a moment, and returns how long its end took."""
    with Started.begin(command, home) as started:
        started.until(lambda: said in started.said() and (not process or started.alive(process)))
        began = time.monotonic()
        started.send(number)
        started.ends(number)
        seconds = time.monotonic() - began
    return f"[bold]{seconds:6.2f}[/]  seconds: {name}, {number.name} (wanted: at most {MOST})"
