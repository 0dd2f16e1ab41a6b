"""Reads image files, recognised by their content and never by their name."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from core.locations import is_remote, reaching

# All other decoders stay disabled, because most vulnerabilities were in those of rare formats.
FORMATS = ("JPEG", "PNG", "WEBP")
# The largest radiographs in use have about 25 million pixels.
MAX_PIXELS = 80_000_000
# Of an object store other errors are the network's.
_OF_ONE_FILE = (FileNotFoundError, IsADirectoryError, PermissionError)


class BadImage(Exception):
    """The bytes are not a usable image. The message says why; `kind` is the category."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def content_of(file: Path) -> bytes:
    """Returns the bytes of an image file.

    Raises:
      BadImage: this file is not there (`absent`), or cannot be read (`unreadable`).
      UserError: the object store cannot be reached.
    """
    with reaching(file):
        try:
            return file.read_bytes()
        except OSError as error:
            if is_remote(file) and not isinstance(error, _OF_ONE_FILE):
                raise
            kind = "absent" if isinstance(error, FileNotFoundError) else "unreadable"
            raise BadImage(kind, error.strerror or str(error)) from error


def for_tensorflow(content: bytes) -> bytes:
    """Returns the image in a form that TensorFlow's decoders read correctly.

    Returns:
      the same bytes if it is an upright JPEG or PNG, else a PNG of the same picture.

    Raises:
      BadImage: see `opened`. Damage after the header of a JPEG or PNG is not detected.
    """
    with opened(content) as image:
        if is_plain(image, content):
            return content
    return to_png(content)


def to_png(content: bytes) -> bytes:
    """Returns the upright image as a PNG of 8-bit grey, with the pixels that viewers display.

    Raises:
      BadImage: see `opened`.
    """
    with opened(content) as image:
        image = ImageOps.exif_transpose(image)
        buffer = io.BytesIO()
        grey(image).save(buffer, format="PNG")
        return buffer.getvalue()


@contextlib.contextmanager
def opened(content: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Yields Pillow's image before it is decoded.

    Raises:
      BadImage: `kind` is `empty`, `not an image`, `too large`, or `corrupt` for any decoder error in the
        block.
    """
    if not content:
        raise BadImage("empty", "the file has no content")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("too large", f"more than {max_pixels:,} pixels") from error
    except Exception as error:  # decoders may raise any error for arbitrary bytes
        raise BadImage(
            "not an image", f"unknown format; expected one of {', '.join(FORMATS)}"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage("too large", f"{width} x {height} pixels, more than {max_pixels:,}")
    try:
        yield image
    except Exception as error:
        raise BadImage("corrupt", f"{type(error).__name__}: {error}") from error


def is_plain(image: Image.Image, content: bytes) -> bool:
    """Returns whether an opened image is an upright JPEG or PNG, which TensorFlow can decode."""
    if image.format not in ("JPEG", "PNG"):
        return False
    if image.format == "PNG" and b"eXIf" not in content and b"Raw profile" not in content:
        return True  # Pillow would have to decode the whole PNG to find out
    return image.getexif().get(0x0112, 1) in (0, 1)  # the orientation


def statistics(image: Image.Image) -> dict[str, float]:
    """Returns statistics that reflect a scanner's settings and do not identify a patient.

    Args:
      image: 8-bit grey, of any size: a picture and a smaller copy of it have the same statistics.

    Returns:
      `brightness`, the mean of the pixels; `contrast`, their standard deviation; `frame`, the mean of the
      outer eighth on each side. All are of a copy of 32 x 32 pixels, from 0 (black) to 1 (white).
    """
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float64) / 255
    frame = np.ones(pixels.shape, bool)
    frame[4:-4, 4:-4] = False
    return {
        "brightness": round(float(pixels.mean()), 4),
        "contrast": round(float(pixels.std()), 4),
        "frame": round(float(pixels[frame].mean()), 4),
    }


def grey(image: Image.Image) -> Image.Image:
    """Returns an image in 8-bit grey; of 16 bits, the upper 8 are kept."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    return image.convert("L")
