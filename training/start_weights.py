"""Where a pretrained base begins, as far as can be told without building it."""

from pathlib import Path

from core.artifacts import BASE_WEIGHTS, PRETRAINING
from core.errors import UserError
from core.files import read_json
from training.recipes import Recipe

IMAGENET, NONE = "imagenet", "none"
# What `cxrflow pretrain` leaves in its directory.

_HDF5 = b"\x89HDF\r\n\x1a\n"


def pretrained_directory(recipe: Recipe, weights: str) -> Path | None:
    """Returns what `pretrain` made for a recipe's base, where `weights` is that; or None."""
    for directory in (Path(weights, recipe.base), Path(weights)):
        if (directory / PRETRAINING).is_file():
            return directory
    return None


def weights_file(recipe: Recipe, weights: str) -> Path:
    """Returns the file that holds a base's weights; `weights` is a path, see `architectures.build`.

    Raises:
      UserError: there is none.
    """
    directory = pretrained_directory(recipe, weights)
    file = directory / BASE_WEIGHTS if directory else Path(weights)
    if not file.is_file():
        raise UserError(
            f"weights: there is no file {file}. Give the path of a weights file, a directory that "
            f"`cxrflow pretrain` made, {IMAGENET!r} or {NONE!r}."
        )
    return file


def require_usable(recipe: Recipe, weights: str) -> None:
    """Looks whether a recipe may start from weights, without reading them.

    Args:
      weights: see `architectures.build`.

    Raises:
      UserError: there is no such file, it is none of weights, or it was made for another base.
    """
    if not recipe.pretrained or weights in (IMAGENET, NONE):
        return
    file = weights_file(recipe, weights)
    directory = pretrained_directory(recipe, weights)
    base = read_json(directory / PRETRAINING)["base"] if directory else recipe.base
    if base != recipe.base:
        raise UserError(
            f"weights: {directory} holds a base {base}, and {recipe.name} needs {recipe.base}. Pretrain "
            "that, or leave the recipe out."
        )
    with file.open("rb") as opened:
        begins = opened.read(len(_HDF5))
    if file.suffix not in (".h5", ".hdf5") or begins != _HDF5:
        raise UserError(
            f"weights: {file} is no file of weights: it is not HDF5, named .h5 or .hdf5. Is it whole?"
        )
