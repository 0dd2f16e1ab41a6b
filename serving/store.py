"""The model store: `<store>/<name>/<version>/`, versions counted from 1 and never changed once there.

A version is a SavedModel as TensorFlow Serving expects it, with the model's card, its metrics and the
decision that let it pass beside it, and a manifest of checksums. The link `latest` names the version
to serve and is moved last.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.files import read_json, sha256_of, write_aside, write_json

LATEST = "latest"
MANIFEST = "manifest.json"


def publish(files: dict[str, Path], store: Path, name: str) -> Path:
    """Publishes a model as the next version.

    Two publishers at once get two versions: a version's directory is made by renaming, which fails
    where there is one, and is then tried again with the next number.

    Args:
      files: what the version is made of, by the name it gets there; what is in a directory named
        `.` lies in the version itself.
      store: made where missing.
      name: of the model.

    Returns:
      the version's directory.
    """
    home = store / name
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".incoming-") as scratch:
        incoming = Path(scratch, name)
        incoming.mkdir()
        for target, source in files.items():
            if source.is_dir():
                shutil.copytree(source, incoming / target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, incoming / target)
        checksums = {
            str(file.relative_to(incoming)): sha256_of(file)
            for file in sorted(incoming.rglob("*"))
            if file.is_file()
        }
        version = home / str(_newest(home) + 1)
        while True:
            manifest = {"model": name, "version": version.name, "files": checksums}
            write_json(incoming / MANIFEST, manifest)
            try:
                incoming.rename(version)
                break
            except OSError:
                if not version.exists():
                    raise
                version = home / str(int(version.name) + 1)
    with write_aside(home / LATEST) as link:
        link.symlink_to(str(_newest(home)), target_is_directory=True)
    return version


def _newest(home: Path) -> int:
    return max((int(entry.name) for entry in home.iterdir() if entry.name.isdigit()), default=0)


def version_in(directory: Path) -> Path:
    """Returns the version that a directory is, or whose `latest` it has.

    Raises:
      UserError: `directory` is neither.
    """
    for candidate in (directory, directory / LATEST):
        if (candidate / MANIFEST).is_file():
            return candidate.resolve()
    raise UserError(
        f"{directory} holds no published model: looked for {MANIFEST} in it and in {LATEST}/. Name a "
        "version of the model store, as `cxrflow run` prints it, or the directory of all versions."
    )


def verified(version: Path) -> dict[str, Any]:
    """Returns a version's manifest: `model`, `version` and `files`, checksums by name.

    Raises:
      UserError: a file is not what was published, or not there.
    """
    try:
        manifest: dict[str, Any] = read_json(version / MANIFEST)
        checksums = manifest["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{version}: {MANIFEST} is damaged; publish the model again") from error
    for name, checksum in checksums:
        file = version / name
        if not file.is_file() or sha256_of(file) != checksum:
            state = "damaged" if file.is_file() else "missing"
            raise UserError(
                f"{version}: {name} is {state}; serve another version, or publish this model again"
            )
    return manifest
