"""Writing files so that a reader sees either all of one or nothing."""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.locations import is_remote


@contextlib.contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` when the block ends well.

    The block may make a file, a link or a directory there. When it raises, whatever it wrote is
    removed and an earlier `path` stays as it was. An existing directory is replaced, and removed only then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        yield aside
        if _is_real_directory(path):
            before = path.rename(aside.with_suffix(".old"))
            try:
                aside.replace(path)
            except BaseException:
                if not path.exists():
                    before.rename(path)
                raise
            shutil.rmtree(before)
        else:
            aside.replace(path)
    finally:
        if _is_real_directory(aside):
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def _is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8: aside and renamed, or in an object store, which does the like."""
    if is_remote(path):
        path.write_text(text, encoding="utf-8")
        return
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` as indented JSON with sorted keys, aside and renamed."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Returns the value of the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of the file at `path` as 64 hexadecimal digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
