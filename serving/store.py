"""The model store: `<store>/<name>/<version>/`, versions counted from 1 and never changed once there.

A version is a SavedModel as TensorFlow Serving expects it, with the model's card, some of its answers
and the decision that let it pass beside it, and a manifest of checksums, which is written last. The
store is a directory, where the link `latest` names the version to serve and is moved last; or a place in
an object store (`gs://`, `s3://`), from where KServe fetches the version that its InferenceService names.
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

LATEST = "latest"
# In a version: why it was let pass, the run and the data that led to it, and the images it was made with
# (`id`, `sha256`, `part`).


def assemble(files: Mapping[str, Path], directory: Path, name: str, identity: str = "") -> Path:
    """Makes a version that is not published yet, and has no number.

    Args:
      files: what it is made of, by the name it gets there; what is in a directory named `.` lies in
        the version itself.
      directory: to be made.
      name: of the model.
      identity: what makes it the same version as another whose files differ, e.g. in times; or nothing.

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
    """Publishes a version under the next number, or finds it where it is published already.

    It is where a version has the same files, or where the newest one has the same identity. Two
    publishers at once get two numbers. One that is killed leaves nothing that counts.

    Args:
      candidate: what `assemble` made.
      store: a directory, made where missing, or the URL of a place in an object store, with
        credentials as the libraries of Google and Amazon find them.

    Returns:
      the version's directory or URL.

    Raises:
      UserError: the object store is not there, or does not let in.
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
    # Of two that publish the same at once the second finds what the first has published.
    with alone(home):
        numbers = range(_newest(home), 0, -1)
        there = ((home / str(number), _manifest(home / str(number))) for number in numbers)
        version = next(
            (
                one
                for one, theirs in there
                if _same(manifest, theirs, is_newest=one.name == str(numbers.start))
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
                        # Fails where there is one.
                        incoming.rename(version)
                        break
                    except OSError:
                        if not version.exists():
                            raise
    assert version
    _move_latest(home)
    return version


def _move_latest(home: Path) -> None:
    """Lets `latest` name the newest version, whoever else publishes.

    Another publisher may move it between a look for the newest and the move, which then moves it back.
    Each looks again after its own move, so the last one to move it leaves it right.
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
    # An older one is published again: it takes the place of what was decided for since.
    identity = manifest.get("identity")
    alike = is_newest and identity and identity == theirs.get("identity")
    return bool(alike) or manifest["files"] == theirs.get("files")


def _publish_to_objects(candidate: Path, manifest: dict[str, Any], url: str) -> str:
    import fsspec  # takes long to import, and most stores are here

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
                # Created by one alone: both stores have a precondition for that.
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
    """Returns the version that a directory is, or whose `latest` it has.

    Raises:
      UserError: `directory` is neither.
    """
    for candidate in (directory, directory / LATEST):
        if (candidate / VERSION).is_file():
            return candidate.resolve()
    raise UserError(
        f"{directory} holds no published model: looked for {VERSION} in it and in {LATEST}/. Name a "
        "version of the model store, as `cxrflow run` prints it, or the directory of all versions."
    )


def newest(store: str, name: str) -> str | None:
    """Returns the directory or URL of the version that is served last: `latest`, or the highest number.

    Raises:
      UserError: the object store is not there, or does not let in.
    """
    home = location(store) / name
    if not is_remote(home):
        latest = home / LATEST
        return str(latest.resolve()) if (latest / VERSION).is_file() else None
    with reaching(home):
        numbers = sorted((int(one) for one in names(home) if one.isdigit()), reverse=True)
        whole = (one for one in numbers if (home / str(one) / VERSION).is_file())
        number = next(whole, None)
    return f"{home}/{number}" if number else None


def fetched(version: str) -> Path:
    """Returns where a version is on this machine, whole; of one in an object store, a copy.

    Raises:
      UserError: it is not there, or damaged.
    """
    if not is_remote(version):
        return version_in(Path(version))
    there = location(version)
    manifest = local_copy(there / VERSION)
    key = hashlib.sha256(str(there).encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir(), "cxrflow-copies", f"{key}-version")
    with alone(copy):  # another process may be reading what a second copy would replace
        try:
            if copy.exists():
                verified(copy)
                return copy
        except UserError:
            pass  # what cleans temporary directories may have been there
        with write_aside(copy) as aside:
            for name in read_json(manifest)["files"]:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                with reaching(there):
                    (aside / name).write_bytes((there / name).read_bytes())
            shutil.copyfile(manifest, aside / VERSION)
            verified(aside, version)
    return copy


def verified(version: Path, called: str = "") -> dict[str, Any]:
    """Returns a version's manifest: `model`, `version` and `files`, checksums by name.

    Args:
      version: its directory.
      called: what messages call it, where that is not its directory.

    Raises:
      UserError: a file is not what was published, or not there.
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
