"""Runs commands of cxrflow as a user does."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("cxrflow")


def show(*arguments: str) -> None:
    """Prints a command as it can be typed here."""
    from pipelines.console import console

    line = shlex.join([os.path.relpath(PROGRAM), *arguments])
    console.print(f"$ {line}", style="dim", markup=False, highlight=False)


def cxrflow(*arguments: str) -> None:
    """Shows a command and runs it.

    Raises:
      SystemExit: the command failed and has said why, or was killed.
    """
    show(*arguments)
    ended = subprocess.run([PROGRAM, *arguments], check=False)
    if ended.returncode < 0:
        sys.exit(f"cxrflow {arguments[0]} was ended by {signal.Signals(-ended.returncode).name}")
    if ended.returncode:
        sys.exit(ended.returncode)
