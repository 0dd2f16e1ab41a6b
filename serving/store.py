"""The model store: `<store>/<name>/<version>/`, versions counted from 1 and never changed once there.

A version is a SavedModel as TensorFlow Serving expects it, with the model's card, its metrics and the
decision that let it pass beside it. The link `latest` names the version to serve and is moved last.
"""

import shutil
import tempfile
from pathlib import Path

from components.errors import UserError
from components.files import write_aside

LATEST = "latest"


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
        version = home / str(_newest(home) + 1)
        while True:
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


def saved_model(directory: Path) -> Path:
    """Returns where the SavedModel is in a version of the store, a model's home, or `train`'s output.

    Raises:
      UserError: `directory` is none of these.
    """
    for candidate in (directory, directory / LATEST, directory / "saved_model"):
        if (candidate / "saved_model.pb").is_file():
            return candidate
    raise UserError(
        f"{directory} holds no model: looked for saved_model.pb in it, in {LATEST}/ and in "
        "saved_model/. Name a version of the model store, as `cxrflow run` prints it."
    )
