"""Measures what a new user waits for: the installation and the demo."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError

# In seconds.
INSTALLATION, DEMO, SILENCE = 120, 240, 10
_LINES_SHOWN = 20


def first(home: Path) -> Iterator[str]:
    """Yields how long installation and demo take in a clone of the last commit, with an empty cache of uv.

    Args:
      home: the directory for all output.

    Raises:
      UserError: there is no git repository, or a command failed, for example without a network.
    """
    clone = home / "clone"
    _timed(home, "git", "clone", "--quiet", str(Path(__file__).parents[1]), str(clone))
    make = ("make", "--directory", str(clone))
    seconds, _, _ = _timed(home, *make, "setup")
    yield f"[bold]{seconds:6.0f}[/]  seconds of `make setup` (wanted: at most {INSTALLATION})"
    seconds, silence, line = _timed(home, *make, "demo", "DEMO=demo", "KEEP=")
    yield f"[bold]{seconds:6.0f}[/]  seconds of `make demo` (wanted: at most {DEMO})"
    yield (
        f"[bold]{silence:6.1f}[/]  seconds at most without a line (wanted: at most {SILENCE}), before: {line}"
    )


def _timed(home: Path, *command: str) -> tuple[float, float, str]:
    """Runs a command without the variables of a calling `make`.

    Returns:
      the seconds that it took, those of its longest silence, and the line that ended that.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name not in ("MFLAGS", "VIRTUAL_ENV", "ONLY")
    }
    began = last = time.monotonic()
    lines, silences = [], [(0.0, "")]
    with subprocess.Popen(
        command,
        env=environment | {"UV_CACHE_DIR": str(home / "cache"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home,
    ) as process:  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            lines.append(line.rstrip())
            silences.append((time.monotonic() - last, line.strip()))
            last = time.monotonic()
    if process.returncode:
        ending = "\n".join(lines[-_LINES_SHOWN:])
        raise UserError(f"`{' '.join(command)}` failed:\n{ending}")
    return time.monotonic() - began, *max(silences)
