"""Programs that run commands of cxrflow as a user does, such as `make demo`.

They import packages where they use them, so that a signal also ends their imports cleanly.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from core.errors import UserError
from pipelines import stopping

# From a signal to SIGKILL: a run that is interrupted takes up to 3.5 to stop what it has started.
_SECONDS = 3.8
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


def begin(main: Callable[[], None]) -> None:
    """Runs a program. A signal ends it and all that it has started; an error is one line."""
    try:
        with stopping.cleanly(_SECONDS):
            main()
    except UserError as error:
        sys.exit(f"error: {error}")
