"""Atomic writes and locks: readers see a complete file or none, also if two runs share a directory."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from core.locations import is_remote
from core.progress import logger

# Errors of renaming to the name of a directory that is not empty.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


@contextlib.contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` when the block succeeds.

    The block may create a file, a link or a directory there. If it raises, whatever it wrote is removed, and
    an earlier `path` stays unchanged. An existing directory is removed only once it is replaced. If two runs
    replace it at once, the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    before = aside.with_suffix(".before.tmp")
    try:
        yield aside
        while True:
            try:
                if _is_real_directory(path):
                    with contextlib.suppress(FileNotFoundError):  # another run has already moved it
                        path.rename(before)
                aside.replace(path)
                break
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                # Another run has put its own directory there meanwhile: replace that one.
                if before.exists():
                    shutil.rmtree(before)
    finally:
        if _is_real_directory(aside):
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)
        if before.exists():
            _put_back_or_remove(before, path)


def _put_back_or_remove(before: Path, path: Path) -> None:
    """Restores the old directory if nothing has taken its place, else removes it."""
    if not path.exists():
        try:
            before.rename(path)
            return
        except OSError as error:  # another run may just have put its own there
            if error.errno not in _TAKEN:
                raise
    shutil.rmtree(before)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Locks `path` against other runs that use this function; waits for a lock, and logs that it does.

    The lock is a file beside `path`. It is released when the process ends, however that ends. If the file
    system has no locks, the log says so, and the block runs without one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / f".{path.name}.lock"
    while True:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another run is using %s; waiting for it to finish", path)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                logger.info("%s cannot be locked (%s): do not let another run use it", path, error)
            # The previous holder has removed the file, so our lock on it is no longer valid.
            if not _is_open(lock, file):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_open(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8, atomically, also in an object store."""
    if is_remote(path):
        path.write_text(text, encoding="utf-8")
        return
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Returns the value of the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of the file at `path` as 64 hexadecimal digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
