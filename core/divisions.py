"""The names of splits and folds, and which of them a protocol uses for training, validation and test."""

import re
from dataclasses import dataclass

from core.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

# The protocol of `cxrflow run`, and the default everywhere.
HOLD_OUT = "70/10/20"


def fold_name(number: int, folds: int) -> str:
    """Returns the name of a fold in cross-validation, e.g. `fold-03-of-10`, counted from 1."""
    return f"fold-{number:02d}-of-{folds:02d}"


@dataclass(frozen=True, kw_only=True)
class Division:
    """The parts of the records used for training, validation and test."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def divisions(protocol: str) -> tuple[str, ...]:
    """Returns the divisions of a protocol; a model is trained and tested for each.

    Args:
      protocol: `70/10/20` (train, validation, test), `80/20` (no validation: the curves are those of the
        test split, which decide nothing, because the last epoch's model is used), or `<N>-fold`.

    Raises:
      UserError: the protocol is unknown.
    """
    folds = folds_of(protocol)
    if folds:
        return tuple(fold_name(number + 1, folds) for number in range(folds))
    return (protocol,)


def folds_of(protocol: str) -> int:
    """Returns the number of folds of a protocol; 0 for a hold-out protocol. See `divisions`."""
    match = re.fullmatch(r"(\d+)-fold", protocol)
    if match and 2 <= int(match[1]) <= 99:
        return int(match[1])
    if protocol not in (HOLD_OUT, "80/20"):
        raise UserError(f"unknown protocol {protocol!r}; choose {HOLD_OUT}, 80/20 or <N>-fold")
    return 0


def division(name: str) -> Division:
    """Returns a division by its name from `divisions`.

    Raises:
      UserError: the division is unknown.
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
    raise UserError(f"unknown division {name!r}; choose {HOLD_OUT}, 80/20 or fold-<n>-of-<N>")
