"""Attributes as devices fill them in: absent and empty are the same, of several values the first counts.

What cannot be read is refused by the attribute's name. Its value is never quoted: it may be anything.
"""

import math
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

from core.images import BadImage


def values(dataset: Dataset, name: str) -> list[Any]:
    """Returns an attribute's values; none where it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    try:
        value = dataset.get(name)
    except Exception:  # pydicom converts values when they are asked for, and raises nearly anything
        raise BadImage("corrupt", f"its {name} cannot be read") from None
    several = (
        value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    )
    return [one for one in several if one not in (None, "", b"")]


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """Returns the items of a sequence; none where it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    found = values(dataset, name)
    if not all(isinstance(item, Dataset) for item in found):
        raise BadImage("corrupt", f"its {name} is not a sequence")
    return found


def number(dataset: Dataset, name: str) -> float | None:
    """Returns an attribute's first value, a finite number, or None where it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    found = values(dataset, name)
    if not found:
        return None
    try:
        read = float(found[0])
    except (TypeError, ValueError, OverflowError):
        read = math.nan
    if not math.isfinite(read):
        raise BadImage("corrupt", f"its {name} is not a number")
    return read


def whole(dataset: Dataset, name: str, least: int, most: int, otherwise: int | None = None) -> int:
    """Returns an attribute's first value, a whole number from `least` to `most`.

    Args:
      otherwise: what it is where it is absent or empty; without one it must be there.

    Raises:
      BadImage: of kind `corrupt`.
    """
    value = number(dataset, name)
    if value is None:
        if otherwise is None:
            raise BadImage("corrupt", f"its {name} is missing")
        return otherwise
    if not least <= value <= most or value != int(value):
        raise BadImage("corrupt", f"its {name} is not a whole number from {least} to {most}")
    return int(value)


def text(dataset: Dataset, name: str) -> str:
    """Returns an attribute's first value in upper case, or "" where it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    found = values(dataset, name)
    if not found:
        return ""
    if not isinstance(found[0], str):
        raise BadImage("corrupt", f"its {name} is not text")
    return found[0].strip(" \0").upper()
