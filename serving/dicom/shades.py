"""Maps stored values to the displayed grey (PS3.3, C.11.1, C.11.2 and C.7.6.3.1.2).

Values have at most 16 bits, so the mapping is computed once for each possible value, not for each pixel. Of
several windows or look-up tables, which are alternatives, the first is used, and a table takes precedence
over a window. Padding values are shown like any other.
"""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from core.images import BadImage
from serving.dicom.attributes import items, number, text, values
from serving.dicom.files import File


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A look-up table (C.11.1.1, C.11.2.1.1).

    Attributes:
      start: the value of the first entry. Smaller values get the first entry, those past the end the last.
      entries: float64 [entries].
      most: the largest possible entry.
    """

    start: int
    entries: np.ndarray
    most: int

    def at(self, values: np.ndarray) -> np.ndarray:
        """Returns the entries for values, float64 of the same shape."""
        places = np.rint(np.clip(values - self.start, 0, len(self.entries) - 1))
        return np.asarray(self.entries[places.astype(np.int64)])


def of_stored(file: File) -> np.ndarray:
    """Returns the grey of each possible stored value.

    Returns:
      uint8 [2**bits] if values have at most 8 bits, else uint16: 0 is black, the largest is white. The index
      of a signed value is its two's complement.

    Raises:
      BadImage: of kind `corrupt` or `not supported`.
    """
    stored = np.arange(2**file.bits, dtype=np.float64)
    if file.signed:
        stored[len(stored) // 2 :] -= len(stored)
    with np.errstate(all="ignore"):
        shades = _shades(file, stored)
    if not np.isfinite(shades).all():
        raise BadImage("corrupt", "its RescaleSlope and RescaleIntercept give no finite values")
    if _is_inverse(file):
        shades = 1 - shades
    kind, white = (np.uint8, 255) if file.bits <= 8 else (np.uint16, 65_535)
    return np.asarray(np.rint(np.clip(shades, 0, 1) * white), kind)


def _is_inverse(file: File) -> bool:
    # They agree in a correct file. If they do not, other readers follow the shape.
    shape = text(file.dataset, "PresentationLUTShape")
    return shape == "INVERSE" or (shape != "IDENTITY" and file.photometric == "MONOCHROME1")


def _shades(file: File, stored: np.ndarray) -> np.ndarray:
    """Returns the brightness of stored values, from 0 for the least possible value to 1 for the largest."""
    table = _table(file, "ModalityLUTSequence", float(stored.min()))
    if table:
        rescaled, least, most = table.at(stored), 0.0, float(table.most)
    else:
        rescaled = _rescaled(file.dataset, stored)
        least, most = float(rescaled.min()), float(rescaled.max())
    table = _table(file, "VOILUTSequence", least)
    if table:
        return table.at(rescaled) / table.most
    return _through_window(file.dataset, rescaled, least, most)


def _rescaled(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    # The standard requires both; other readers ignore a single one.
    return stored if not slope or intercept is None else stored * slope + intercept


def _through_window(
    dataset: Dataset, rescaled: np.ndarray, least: float, most: float
) -> np.ndarray:
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    if centre is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return (rescaled - least) / (most - least)
    if function == "LINEAR":
        if width == 1:
            return (rescaled > centre - 0.5).astype(np.float64)
        return (rescaled - (centre - 0.5)) / (width - 1) + 0.5
    if function == "LINEAR_EXACT":
        return (rescaled - centre) / width + 0.5
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (rescaled - centre) / width))
    raise BadImage(
        "not supported", "its VOILUTFunction is not one of LINEAR, LINEAR_EXACT, SIGMOID"
    )


def _table(file: File, name: str, least: float) -> _Table | None:
    """Returns the first table of a sequence; None if there is no sequence or all items are empty.

    Args:
      least: the smallest value that will be looked up, which tells whether the table's start is signed.

    Raises:
      BadImage: of kind `corrupt`.
    """
    for item in items(file.dataset, name):
        if not values(item, "LUTDescriptor") and not values(item, "LUTData"):
            continue
        try:
            count, start, bits = (int(value) for value in values(item, "LUTDescriptor"))
        except (TypeError, ValueError):
            raise BadImage(
                "corrupt", f"the LUTDescriptor of its {name} is not three numbers"
            ) from None
        if not 1 <= bits <= 16:
            raise BadImage("corrupt", f"the entries of its {name} have {bits} bits, not 1 to 16")
        start %= 2**16
        if least < 0 and start >= 2**15:
            start -= 2**16
        entries = _entries(item, count % 2**16 or 2**16, bits, file.little_endian)
        if entries is None:
            raise BadImage(
                "corrupt", f"the LUTData of its {name} is shorter than LUTDescriptor says"
            )
        most = 2**bits - 1
        if entries.max() > most:
            raise BadImage(
                "corrupt", f"the LUTData of its {name} exceeds the bits of LUTDescriptor"
            )
        return _Table(start=start, entries=entries.astype(np.float64), most=most)
    return None


def _entries(item: Dataset, count: int, bits: int, little_endian: bool) -> np.ndarray | None:
    """Returns uint8 or uint16 [count]; None if there are fewer entries."""
    data = values(item, "LUTData")
    if len(data) == 1 and isinstance(data[0], bytes):
        words = np.frombuffer(data[0][: len(data[0]) // 2 * 2], "<u2" if little_endian else ">u2")
    else:
        words = np.asarray(data, np.int64).astype("<u2")
    if bits <= 8 and len(words) == (count + 1) // 2:  # two to a word
        words = words.astype("<u2").view(np.uint8)
    return words[:count] if len(words) >= count else None
