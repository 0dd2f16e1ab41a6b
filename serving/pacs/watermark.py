"""The day from which studies are searched, kept in a file. It holds a date and nothing else."""

from datetime import date
from pathlib import Path

from core.errors import UserError
from core.files import read_json, write_json


def read(file: Path) -> date | None:
    """Returns the day that the file holds; None if there is no file.

    Raises:
      UserError: the file cannot be read.
    """
    if not file.exists():
        return None
    try:
        return date.fromisoformat(read_json(file)["since"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"pacs: {file} is not a watermark ({error}); delete it, and give --since"
        ) from error


def write(file: Path, since: date) -> None:
    """Replaces the day that the file holds."""
    if read(file) != since:
        write_json(file, {"since": since.isoformat()})
