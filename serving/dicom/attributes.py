"""DICOM attributes as devices write them: absent and empty mean the same; the first of several values counts.

If an attribute cannot be read, the error names it but never quotes its value, which may be anything.
"""

import math
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

from core.images import BadImage


def values(dataset: Dataset, name: str) -> list[Any]:
    """Returns an attribute's values; none if it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    try:
        value = dataset.get(name)
    except Exception:  # pydicom converts values on access and may raise any error
        raise BadImage("corrupt", f"its {name} cannot be read") from None
    several = (
        value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    )
    return [each for each in several if each not in (None, "", b"")]


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """Returns the items of a sequence; none if it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    items_read = values(dataset, name)
    if not all(isinstance(item, Dataset) for item in items_read):
        raise BadImage("corrupt", f"its {name} is not a sequence")
    return items_read


def number(dataset: Dataset, name: str) -> float | None:
    """Returns an attribute's first value, a finite number; None if it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    several = values(dataset, name)
    if not several:
        return None
    try:
        read = float(several[0])
    except (TypeError, ValueError, OverflowError):
        read = math.nan
    if not math.isfinite(read):
        raise BadImage("corrupt", f"its {name} is not a number")
    return read


def whole(dataset: Dataset, name: str, least: int, most: int, otherwise: int | None = None) -> int:
    """Returns an attribute's first value, a whole number from `least` to `most`.

    Args:
      otherwise: the value if the attribute is absent or empty; None if it is required.

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
    """Returns an attribute's first value in upper case; "" if it is absent or empty.

    Raises:
      BadImage: of kind `corrupt`.
    """
    several = values(dataset, name)
    if not several:
        return ""
    if not isinstance(several[0], str):
        raise BadImage("corrupt", f"its {name} is not text")
    return several[0].strip(" \0").upper()
