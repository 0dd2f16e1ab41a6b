"""Checks the starting weights of a pretrained base without building it."""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from core.artifacts import BASE_WEIGHTS, PRETRAINING
from core.errors import UserError
from core.files import read_json
from training.recipes import Recipe

IMAGENET, NONE = "imagenet", "none"

# Where Keras downloads them from; the MD5 is what Keras checks.
_SERVER = "https://storage.googleapis.com/tensorflow/keras-applications"
_DIRECTORY_AND_MD5 = {
    "resnet50": ("resnet", "4d473c1dd8becc155b73f8504c6f6626"),
    "vgg16": ("vgg16", "6d6bbae143d832006294945121d1f1fc"),
    "xception": ("xception", "b0042744bf5b25fce3cb969f33bebb97"),
}
_SECONDS = 10.0

_HDF5 = b"\x89HDF\r\n\x1a\n"


def pretrained_directory(recipe: Recipe, weights: str) -> Path | None:
    """Returns the directory that `pretrain` made for a recipe's base; None if `weights` is something else."""
    for directory in (Path(weights, recipe.base), Path(weights)):
        if (directory / PRETRAINING).is_file():
            return directory
    return None


def weights_file(recipe: Recipe, weights: str) -> Path:
    """Returns the file with a base's weights; `weights` is a path, see `architectures.build`.

    Raises:
      UserError: there is no such file.
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
    """Checks whether a recipe can start from weights on this machine, without building its base.

    Args:
      weights: see `architectures.build`.

    Raises:
      UserError: there is no such file, it is not a weights file, it is for another base, or ImageNet's
        weights can be neither found nor downloaded.
    """
    if not recipe.pretrained or weights == NONE:
        return
    if weights == IMAGENET:
        _require_imagenet(recipe)
        return
    file = weights_file(recipe, weights)
    directory = pretrained_directory(recipe, weights)
    base = read_json(directory / PRETRAINING)["base"] if directory else recipe.base
    if base != recipe.base:
        raise UserError(
            f"weights: {directory} has a base {base}, but {recipe.name} needs {recipe.base}. Pretrain "
            "that base, or leave the recipe out."
        )
    with file.open("rb") as opened:
        begins = opened.read(len(_HDF5))
    if file.suffix not in (".h5", ".hdf5") or begins != _HDF5:
        raise UserError(
            f"weights: {file} is not a weights file: it is not HDF5 with the ending .h5 or "
            ".hdf5. Is it complete?"
        )


def _require_imagenet(recipe: Recipe) -> None:
    name = f"{recipe.base}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    directory, digest = _DIRECTORY_AND_MD5[recipe.base]
    # Keras' own rule, and its place if the home directory cannot be written.
    for home in (os.environ.get("KERAS_HOME", "~/.keras"), "/tmp/.keras"):
        file = Path(os.path.expanduser(home), "models", name)  # noqa: PTH111 - without a home, Path fails
        if file.is_file() and _md5(file) == digest:
            return
    url = f"{_SERVER}/{directory}/{name}"
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECONDS).close()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(cannot_start(recipe, IMAGENET, f"{url}: {error}")) from error


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def cannot_start(recipe: Recipe, weights: str, why: str) -> str:
    """Returns the message that a recipe cannot start from weights, and what to do without a network."""
    return (
        f"weights: {recipe.name} cannot start from {weights!r}: {why}. Without a network, give the path of a "
        "weights file without the top, a directory that `cxrflow pretrain` made, or "
        f"{NONE!r} to train from scratch (the report will say so)."
    )
