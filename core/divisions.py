"""The names of a dataset's parts, and which of them a protocol trains and tests on."""

import re
from dataclasses import dataclass

from core.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

# How the main job judges candidates, and the default everywhere.
HOLD_OUT = "70/10/20"


def fold_name(number: int, folds: int) -> str:
    """Returns the name of a part in cross-validation, e.g. `fold-03-of-10`; counted from 1."""
    return f"fold-{number:02d}-of-{folds:02d}"


@dataclass(frozen=True, kw_only=True)
class Division:
    """Which parts of the records are trained on, watched meanwhile, and tested on."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def divisions(protocol: str) -> tuple[str, ...]:
    """Returns the divisions that a protocol trains and tests on, one after the other.

    Args:
      protocol: `70/10/20` (train, validation, test), `80/20` (without validation: the curves are
        then those of the test split, which decides nothing, for the last epoch is taken), or
        `<N>-fold`.

    Raises:
      UserError: it is none of these.
    """
    folds = folds_of(protocol)
    if folds:
        return tuple(fold_name(number + 1, folds) for number in range(folds))
    return (protocol,)


def folds_of(protocol: str) -> int:
    """Returns the number of folds of a protocol, 0 where it holds out one split; see `divisions`."""
    match = re.fullmatch(r"(\d+)-fold", protocol)
    if match and 2 <= int(match[1]) <= 99:
        return int(match[1])
    if protocol not in (HOLD_OUT, "80/20"):
        raise UserError(f"protocol: {protocol!r} is none of {HOLD_OUT}, 80/20 and <N>-fold")
    return 0


def division(name: str) -> Division:
    """Returns a division by the name that `divisions` gave it.

    Raises:
      UserError: it gave none such.
    """
    match = re.fullmatch(r"fold-(\d+)-of-(\d+)", name)
    if match:
        folds = [fold_name(number + 1, int(match[2])) for number in range(int(match[2]))]
        rest = tuple(fold for fold in folds if fold != name)
        return Division(train=rest, validation=(name,), test=(name,))
    if name == "80/20":
        return Division(train=(TRAIN, VALIDATION), validation=(TEST,), test=(TEST,))
    if name == HOLD_OUT:
        return Division(train=(TRAIN,), validation=(VALIDATION,), test=(TEST,))
    raise UserError(f"division: {name!r} is none of {HOLD_OUT}, 80/20 and fold-<n>-of-<N>")
