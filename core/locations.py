"""Local directories and places at `gs://` or `s3://`, read and written in the same way.

Google's and Amazon's libraries find the credentials. `AWS_ENDPOINT_URL` selects another S3 service, such as
that of Kubeflow Pipelines, and `STORAGE_EMULATOR_HOST` another Cloud Storage.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from core.errors import UserError
from core.progress import Progress

if TYPE_CHECKING:
    from upath import UPath


def location(text: str | Path) -> Path:
    """Returns the place that an argument names; local or not, it can be used as a `pathlib.Path`."""
    if not is_remote(text):
        return Path(text)
    from upath import UPath  # slow to import, and most places are local

    return cast(Path, UPath(text))


def is_remote(place: str | Path) -> bool:
    """Returns whether a place is in an object store."""
    return "://" in str(place)


def absolute(text: str | Path) -> str:
    """Returns the absolute form of an argument, valid in any working directory."""
    return str(text) if is_remote(text) else str(Path(text).resolve())


def sizes(directory: Path) -> dict[str, int]:
    """Returns the sizes in bytes of the files below a directory, by their relative paths.

    An object store needs only a few requests for it. Returns nothing if there is no directory.

    Raises:
      UserError: a file's name is not UTF-8.
    """
    if not is_remote(directory):
        local = {}
        for folder, _, names in os.walk(directory, followlinks=True):
            below = os.path.relpath(folder, directory)
            for name in names:
                with contextlib.suppress(OSError):  # a link to nothing or to itself
                    info = Path(folder, name).stat()
                    if stat.S_ISREG(info.st_mode):
                        local[name if below == "." else f"{below}/{name}"] = info.st_size
        require_utf_8(directory, local)
        return local
    place = cast("UPath", directory)
    listed = place.fs.find(place.path, detail=True)
    root = place.path.rstrip("/") + "/"
    return {path.removeprefix(root): int(info["size"]) for path, info in listed.items()}


def require_utf_8(directory: Path, paths: Iterable[str]) -> None:
    """Checks the names of files, of which a system may allow any bytes.

    Raises:
      UserError: a file's name is not UTF-8.
    """
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{directory}: the name of the file {path!a} is not UTF-8; rename it"
            ) from error


def names(directory: Path) -> list[str]:
    """Returns the names of a directory's entries; none if there is no directory."""
    if not is_remote(directory):
        return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    place = cast("UPath", directory)
    place.fs.invalidate_cache(place.path)
    try:
        paths = place.fs.ls(place.path, detail=False)
    except FileNotFoundError:
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in paths]


def create(file: Path, content: bytes) -> None:
    """Creates a file, which must not exist yet; of several concurrent calls, one succeeds.

    Raises:
      FileExistsError: the file exists.
    """
    if is_remote(file):
        place = cast("UPath", file)
        # Both stores have this precondition for requests.
        place.fs.pipe_file(place.path, content, mode="create")
        return
    with _aside(file) as aside:
        aside.write_bytes(content)
        os.link(aside, file)


def store(file: Path, place: Path) -> None:
    """Copies a local file to a place, atomically."""
    if is_remote(place):
        remote = cast("UPath", place)
        remote.fs.put_file(str(file), remote.path)
        return
    with _aside(place) as aside:
        shutil.copyfile(file, aside)
        aside.replace(place)


def local_copy(file: Path) -> Path:
    """Returns a local path of a file; a file in an object store, which must never change, is copied.

    It is copied once, to the system's temporary directory.

    Raises:
      UserError: the file cannot be fetched.
    """
    if not is_remote(file):
        return file
    place = cast("UPath", file)
    name = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir(), "cxrflow-copies", f"{name}-{place.name}")
    if not copy.exists():
        with _aside(copy) as aside:
            with Progress(f"copying {place}"), reaching(file):
                place.fs.get_file(place.path, str(aside))
            aside.replace(copy)
    return copy


@contextlib.contextmanager
def _aside(file: Path) -> Iterator[Path]:
    """Yields a temporary path beside a file, and removes what is left there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.parent / f".{file.name}.{uuid.uuid4().hex}.tmp"
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def reaching(place: str | Path) -> Iterator[None]:
    """Turns the errors of an object store in the block into messages that say where and what to do.

    Raises:
      UserError: instead of the errors of the object store's library.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FileExistsError) or not is_remote(place):
            raise
        from gcsfs.retry import HttpError  # slow to import

        if not isinstance(error, OSError | HttpError):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{place} cannot be read or written: {said[:300]}. Is the bucket there, and may this "
            "account use it?"
        ) from error
