"""Where data lies: a directory of this machine, or a place at `gs://` or `s3://`, read and written alike.

Credentials are found as the libraries of Google and Amazon find them; `AWS_ENDPOINT_URL` names another
S3, such as that of Kubeflow Pipelines, and `STORAGE_EMULATOR_HOST` another Cloud Storage.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from core.errors import UserError

if TYPE_CHECKING:
    from upath import UPath


def location(text: str | Path) -> Path:
    """Returns the place that an argument names, to be used as a `pathlib.Path`, whichever it is."""
    if not is_remote(text):
        return Path(text)
    from upath import UPath  # takes long to import, and most places are here

    return cast(Path, UPath(text))


def is_remote(place: str | Path) -> bool:
    """Returns whether a place is in an object store."""
    return "://" in str(place)


def absolute(text: str | Path) -> str:
    """Returns an argument as every step sees it, wherever it is started."""
    return str(text) if is_remote(text) else str(Path(text).resolve())


def sizes(directory: Path) -> dict[str, int]:
    """Returns the files below a directory, by their paths relative to it, with their sizes in bytes.

    From an object store in a few requests, however many they are. None where there is no directory.
    """
    if not is_remote(directory):
        found = {}
        for folder, _, names in os.walk(directory, followlinks=True):
            below = os.path.relpath(folder, directory)
            for name in names:
                with contextlib.suppress(OSError):  # a link to nothing or to itself
                    info = Path(folder, name).stat()
                    if stat.S_ISREG(info.st_mode):
                        found[name if below == "." else f"{below}/{name}"] = info.st_size
        return found
    place = cast("UPath", directory)
    listed = place.fs.find(place.path, detail=True)
    root = place.path.rstrip("/") + "/"
    return {path.removeprefix(root): int(info["size"]) for path, info in listed.items()}


def names(directory: Path) -> list[str]:
    """Returns the names of what is in a directory; none where there is no directory."""
    if not is_remote(directory):
        return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    place = cast("UPath", directory)
    place.fs.invalidate_cache(place.path)
    try:
        found = place.fs.ls(place.path, detail=False)
    except FileNotFoundError:
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in found]


def create(file: Path, content: bytes) -> None:
    """Writes a whole file that must not be there yet; of several at once, one does.

    Raises:
      FileExistsError: it is there.
    """
    if is_remote(file):
        place = cast("UPath", file)
        # A precondition of the request, in both stores.
        place.fs.pipe_file(place.path, content, mode="create")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.parent / f".{file.name}.{uuid.uuid4().hex}.tmp"
    try:
        aside.write_bytes(content)
        os.link(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def store(file: Path, place: Path) -> None:
    """Copies a local file to a place, where it is whole or not there."""
    if is_remote(place):
        remote = cast("UPath", place)
        remote.fs.put_file(str(file), remote.path)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.parent / f".{place.name}.{uuid.uuid4().hex}.tmp"
    try:
        shutil.copyfile(file, aside)
        aside.replace(place)
    finally:
        aside.unlink(missing_ok=True)


def local_copy(file: Path) -> Path:
    """Returns where a file is on this machine; of one in an object store that never changes, a copy.

    Copies are kept in the system's temporary directory, by their place, and fetched once.

    Raises:
      UserError: it cannot be fetched.
    """
    if not is_remote(file):
        return file
    place = cast("UPath", file)
    name = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir(), "cxrflow-copies", f"{name}-{place.name}")
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        aside = copy.parent / f".{copy.name}.{uuid.uuid4().hex}.tmp"
        try:
            with reaching(file):
                place.fs.get_file(place.path, str(aside))
            aside.replace(copy)
        finally:
            aside.unlink(missing_ok=True)
    return copy


@contextlib.contextmanager
def reaching(place: str | Path) -> Iterator[None]:
    """Says of what goes wrong in the block with an object store where it is and what to do.

    Raises:
      UserError: in place of what the object store's library raises.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FileExistsError) or not is_remote(place):
            raise
        from gcsfs.retry import HttpError  # takes long to import

        if not isinstance(error, OSError | HttpError):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{place} cannot be read or written: {said[:300]}. Is the bucket there, and may this "
            "account use it?"
        ) from error
