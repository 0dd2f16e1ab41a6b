"""Measures what a new user waits for: the installation and the demo."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError

# In seconds.
INSTALLATION, DEMO = 120, 240
_LINES_SHOWN = 20


def first(home: Path) -> Iterator[str]:
    """Yields how long installation and demo take in a clone of the last commit, with an empty cache of uv.

    Args:
      home: the directory for all output.

    Raises:
      UserError: there is no git repository, or a command failed.
    """
    clone, cache = home / "clone", home / "cache"
    checkout = Path(__file__).parents[1]
    _seconds(home, "git", "clone", "--quiet", str(checkout), str(clone))
    for what, wanted in (("setup", INSTALLATION), ("demo", DEMO)):
        seconds = _seconds(home, "make", "--directory", str(clone), what, cache=cache)
        yield f"[bold]{seconds:6.0f}[/]  seconds of `make {what}` (wanted: at most {wanted})"


def _seconds(home: Path, *command: str, cache: Path | None = None) -> float:
    """Returns how long a command takes, which runs as if nobody had called `make`."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name not in ("MFLAGS", "VIRTUAL_ENV", "ONLY")
    }
    began = time.monotonic()
    done = subprocess.run(
        command,
        env=environment | ({"UV_CACHE_DIR": str(cache)} if cache else {}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=home,
    )  # fmt: skip
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-_LINES_SHOWN:])
        raise UserError(f"bench: `{' '.join(command)}` failed:\n{last}")
    return time.monotonic() - began
