"""The command line, run as a user runs it."""

import subprocess
import sys
from pathlib import Path


def cxrflow(*arguments: str, fails: bool = False, cwd: Path | None = None) -> str:
    """Returns what a command prints: on standard error where it is to fail, else on the other."""
    command = [str(Path(sys.executable).parent / "cxrflow"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout
