"""Reads DICOM files: from a radiograph as its device stored it to the picture as it is displayed.

`files` reads the attributes, but only those of the picture, so that no patient data is ever in memory.
`samples` reads the pixels, and `shades` maps them to grey values.
"""

import io
import logging
import warnings

import numpy as np
from PIL import Image

from core.images import BadImage
from serving.dicom import files, samples, shades

# Its messages about an attribute that it cannot read may quote the attribute.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def is_dicom(content: bytes) -> bool:
    """Returns whether a file is DICOM (PS3.10, 7.1), with or without a preamble.

    Old devices and archives wrote files without one, and other readers accept them. They begin with an
    attribute of group 2 or, without a file header, of group 8.
    """
    return (
        content[128:132] == b"DICM"
        or (content[:2] in (b"\x02\0", b"\x08\0") and content[3:4] == b"\0")
        or content[:3] == b"\0\x08\0"  # big endian
    )


def to_png(content: bytes, max_pixels: int) -> bytes:
    """Returns the picture of a DICOM file as a PNG.

    Args:
      content: the file.
      max_pixels: the most pixels that the picture may have.

    Returns:
      grey as displayed, in 8 bits if no more are stored, else in 16; or 8-bit RGB.

    Raises:
      BadImage: `kind` is `no picture`, `several frames`, `not supported`, `too large` or `corrupt`; the
        message names the attribute.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = _pixels(files.read(content, max_pixels))
    except BadImage:
        raise
    except Exception:
        # Not chained, because the decoder's message may quote the file.
        raise BadImage("corrupt", "the DICOM file cannot be decoded") from None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _pixels(file: files.File) -> np.ndarray:
    """Returns uint8 or uint16 [rows, columns], or uint8 [rows, columns, 3]."""
    if file.colours == 1:
        table = shades.of_stored(file)
        return np.asarray(table[samples.stored(file)])
    values = samples.stored(file)
    eight = (values >> max(0, file.bits - 8)).astype(np.uint8)
    if file.photometric.startswith("YBR_FULL"):
        return np.asarray(Image.fromarray(eight, "YCbCr").convert("RGB"))
    return eight
