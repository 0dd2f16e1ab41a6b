"""The model store: `<store>/<name>/<version>/`. Versions are numbered from 1 and never change.

A version is a SavedModel as TensorFlow Serving expects it, together with the model's card, its known answers,
the gate's decision, and a manifest of checksums, which is written last. The store is either a directory, in
which the link `latest` points to the version to serve and is updated last, or a place in an object store
(`gs://`, `s3://`), from which KServe fetches the version that its InferenceService names.
"""

import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.artifacts import VERSION
from core.errors import UserError
from core.files import alone, read_json, sha256_of, write_aside, write_json
from core.locations import is_remote, local_copy, location, names, reaching
from core.progress import Progress

LATEST = "latest"


def assemble(files: Mapping[str, Path], directory: Path, name: str, identity: str = "") -> Path:
    """Assembles a version that is not published yet and has no number.

    Args:
      files: the version's files and directories, by their names in it; the contents of a directory named
        `.` are placed in the version itself.
      directory: to create.
      name: of the model.
      identity: two versions with the same one count as the same, even if their files differ, for example in
        timestamps; may be empty.

    Returns:
      the directory.
    """
    directory.mkdir(parents=True)
    for target, source in files.items():
        if source.is_dir():
            shutil.copytree(source, directory / target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, directory / target)
    checksums = {
        str(file.relative_to(directory)): sha256_of(file)
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }
    manifest = {"model": name, "version": "", "identity": identity, "files": checksums}
    write_json(directory / VERSION, manifest)
    return directory


def publish(candidate: Path, store: str) -> str:
    """Publishes a version under the next number, unless it is already published.

    It is already published if a version has the same files, or if the newest version has the same identity.
    Concurrent publishers get different numbers. A publisher that is killed leaves no valid version.

    Args:
      candidate: the directory that `assemble` made.
      store: a directory, created if missing, or the URL of a place in an object store; Google's and
        Amazon's libraries find the credentials.

    Returns:
      the version's directory or URL.

    Raises:
      UserError: the object store does not exist or denies access.
    """
    manifest = read_json(candidate / VERSION)
    if "://" in store:
        return _publish_to_objects(candidate, manifest, f"{store.rstrip('/')}/{manifest['model']}")
    return str(_publish_to_directory(candidate, manifest, Path(store, manifest["model"])))


def number_of(version: str) -> str:
    """Returns the number of a version's directory or URL."""
    return version.rstrip("/").rpartition("/")[2]


def _publish_to_directory(candidate: Path, manifest: dict[str, Any], home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    # If two runs publish the same model at once, the second finds the version of the first.
    with alone(home):
        numbers = range(_newest(home), 0, -1)
        there = ((home / str(number), _manifest(home / str(number))) for number in numbers)
        version = next(
            (
                published
                for published, theirs in there
                if _same(manifest, theirs, is_newest=published.name == str(numbers.start))
            ),
            None,
        )
        if not version:
            with tempfile.TemporaryDirectory(dir=home, prefix=".incoming-") as scratch:
                incoming = Path(scratch, "version")
                shutil.copytree(candidate, incoming)
                for number in itertools.count(_newest(home) + 1):
                    version = home / str(number)
                    write_json(incoming / VERSION, {**manifest, "version": version.name})
                    try:
                        # Fails if the number is taken.
                        incoming.rename(version)
                        break
                    except OSError:
                        if not version.exists():
                            raise
    assert version
    _move_latest(home)
    return version


def _move_latest(home: Path) -> None:
    """Points `latest` to the newest version, also with concurrent publishers.

    Another publisher may move the link between our check for the newest version and our move, which then
    moves it back. Each publisher checks again after its move, so the last move is right.
    """
    moved = None
    while moved != (newest := str(_newest(home))):
        with write_aside(home / LATEST) as link:
            link.symlink_to(newest, target_is_directory=True)
        moved = newest


def _newest(home: Path) -> int:
    return max((int(entry.name) for entry in home.iterdir() if entry.name.isdigit()), default=0)


def _manifest(version: Path) -> dict[str, Any]:
    try:
        return dict(read_json(version / VERSION))
    except (OSError, ValueError, TypeError):
        return {}


def _same(manifest: Mapping[str, Any], theirs: Mapping[str, Any], *, is_newest: bool) -> bool:
    # Only the newest: an older version that wins again must be published again to become the newest.
    identity = manifest.get("identity")
    alike = is_newest and identity and identity == theirs.get("identity")
    return bool(alike) or manifest["files"] == theirs.get("files")


def _publish_to_objects(candidate: Path, manifest: dict[str, Any], url: str) -> str:
    import fsspec  # slow to import, and most stores are local

    with reaching(url):
        objects, home = fsspec.core.url_to_fs(url)
        objects.invalidate_cache()
        numbers = sorted(
            (
                int(number_of(path.removesuffix(f"/{VERSION}")))
                for path in objects.glob(f"{home}/*/{VERSION}")
            ),
            reverse=True,
        )
        for number in numbers:
            theirs = json.loads(objects.cat_file(f"{home}/{number}/{VERSION}"))
            if _same(manifest, theirs, is_newest=number == numbers[0]):
                return f"{url}/{number}"
        claimed = [number_of(path) for path in objects.glob(f"{home}/claims/*")]
        for number in itertools.count(max(map(int, claimed), default=0) + 1):
            try:
                # Only one publisher can create it: both stores have such a precondition.
                objects.pipe_file(f"{home}/claims/{number}", b"claimed", mode="create")
                break
            except FileExistsError:
                continue
        for name in manifest["files"]:
            objects.put_file(str(candidate / name), f"{home}/{number}/{name}")
        last = json.dumps({**manifest, "version": str(number)}, indent=2, sort_keys=True)
        objects.pipe_file(f"{home}/{number}/{VERSION}", last.encode())
    return f"{url}/{number}"


def version_in(directory: Path) -> Path:
    """Returns a version: the directory itself, or the target of its link `latest`.

    Raises:
      UserError: the directory is not a version and has no such link.
    """
    for candidate in (directory, directory / LATEST):
        if (candidate / VERSION).is_file():
            return candidate.resolve()
    raise UserError(
        f"{directory} holds no published model: looked for {VERSION} in it and in {LATEST}/. Give a "
        "version of the model store, as printed by `cxrflow run`, or the directory of all versions."
    )


def newest(store: str, name: str) -> str | None:
    """Returns the directory or URL of the newest version: `latest`, or in an object store the highest number.

    Raises:
      UserError: the object store does not exist or denies access.
    """
    home = location(store) / name
    if not is_remote(home):
        latest = home / LATEST
        return str(latest.resolve()) if (latest / VERSION).is_file() else None
    with reaching(home):
        numbers = sorted((int(entry) for entry in names(home) if entry.isdigit()), reverse=True)
        complete = (number for number in numbers if (home / str(number) / VERSION).is_file())
        number = next(complete, None)
    return f"{home}/{number}" if number else None


def fetched(version: str) -> Path:
    """Returns a version's local directory; a version in an object store is copied.

    Raises:
      UserError: the version is missing or damaged.
    """
    if not is_remote(version):
        return version_in(Path(version))
    there = location(version)
    manifest = local_copy(there / VERSION)
    key = hashlib.sha256(str(there).encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir(), "cxrflow-copies", f"{key}-version")
    with alone(copy):  # another process may be reading the copy that this one would replace
        try:
            if copy.exists():
                verified(copy)
                return copy
        except UserError:
            pass  # the system may have cleaned up parts of the temporary directory
        with write_aside(copy) as aside:
            names = read_json(manifest)["files"]
            with Progress(f"files of {version} copied", len(names)) as progress, reaching(there):
                for name in names:
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    (aside / name).write_bytes((there / name).read_bytes())
                    progress.advance()
            shutil.copyfile(manifest, aside / VERSION)
            verified(aside, version)
    return copy


def verified(version: Path, called: str = "") -> dict[str, Any]:
    """Verifies a version's files and returns its manifest: `model`, `version` and `files`, checksums by name.

    Args:
      version: its directory.
      called: its name in messages, by default its directory.

    Raises:
      UserError: a file is missing or differs from the published one.
    """
    called = called or str(version)
    try:
        manifest: dict[str, Any] = read_json(version / VERSION)
        checksums = manifest["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{called}: {VERSION} is damaged; publish the model again") from error
    for name, checksum in checksums:
        file = version / name
        if not file.is_file() or sha256_of(file) != checksum:
            state = "damaged" if file.is_file() else "missing"
            raise UserError(
                f"{called}: {name} is {state}; serve another version, or publish this model again"
            )
    return manifest
