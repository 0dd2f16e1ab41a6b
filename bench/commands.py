"""Runs commands of cxrflow as a user does."""

import subprocess
import sys
from pathlib import Path


def cxrflow(*arguments: str) -> None:
    """Shows a command and runs it.

    Raises:
      SystemExit: the command failed, and has said why; with its exit code.
    """
    from pipelines.console import console

    console.print(f"$ cxrflow {' '.join(arguments)}", style="dim", markup=False, highlight=False)
    program = Path(sys.executable).with_name("cxrflow")
    ended = subprocess.run([program, *arguments], check=False)
    if ended.returncode:
        sys.exit(ended.returncode)
