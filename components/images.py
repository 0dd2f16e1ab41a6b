"""What an image file really is, judged by its content and never by its name."""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image, ImageOps

# Decoders for everything else stay closed: rare formats are where decoders have had their holes.
FORMATS = ("JPEG", "PNG", "WEBP")
# The largest radiographs in use have about 25 million pixels.
MAX_PIXELS = 80_000_000
HASH_SIZE = 16

_HASH_INPUT = 4 * HASH_SIZE  # imagehash.phash shrinks to this side before its cosine transform


class BadImage(Exception):
    """The bytes are not an image that can be used; the message says why, `kind` in one word."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What `inspect` finds out about an image.

    Attributes:
      sha256: of the file's bytes, 64 hexadecimal digits.
      width, height: in pixels, as stored (before an EXIF rotation).
      mode: Pillow's pixel mode, e.g. `L`, `RGB`, `RGBA`, `I;16`.
      perceptual_hash: 256 bits as 64 hexadecimal digits; near-identical pictures differ in few bits
        (imagehash's phash: signs of the low frequencies of a cosine transform).
    """

    sha256: str
    width: int
    height: int
    mode: str
    perceptual_hash: str


def inspect(content: bytes) -> Facts:
    """Decodes an image completely and returns what it is.

    Raises:
      BadImage: `kind` is `empty`, `not an image`, `too large` or `corrupt`.
    """
    with _opened(content) as image:
        mode, (width, height) = image.mode, image.size
        # A JPEG decodes faster at reduced size; all of its data is still read, so a truncated or
        # corrupt one is still found.
        image.draft(None, (_HASH_INPUT, _HASH_INPUT))
        perceptual_hash = imagehash.phash(_grey(image), hash_size=HASH_SIZE)
    return Facts(
        sha256=hashlib.sha256(content).hexdigest(),
        width=width,
        height=height,
        mode=mode,
        perceptual_hash=str(perceptual_hash),
    )


def for_tensorflow(content: bytes) -> bytes:
    """Returns the image as TensorFlow's decoders read it the way it is meant to be seen.

    Returns:
      the same bytes where it is an upright JPEG or PNG, else a PNG of the same picture.

    Raises:
      BadImage: as `inspect`; damage past the header of a JPEG or PNG is not looked for.
    """
    with _opened(content) as image:
        upright = image.getexif().get(0x0112, 1) in (0, 1)  # the EXIF orientation tag
        if upright and image.format in ("JPEG", "PNG"):
            return content
    return to_png(content)


def to_png(content: bytes) -> bytes:
    """Returns the image, turned upright, as a PNG of 8-bit grey: pixels equal to what is displayed.

    Raises:
      BadImage: as `inspect`.
    """
    with _opened(content) as image:
        image = ImageOps.exif_transpose(image)
        buffer = io.BytesIO()
        _grey(image).save(buffer, format="PNG")
        return buffer.getvalue()


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Yields Pillow's image; every failure of a decoder, here or in the block, becomes a BadImage."""
    if not content:
        raise BadImage("empty", "the file has no content")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("too large", str(error)) from error
    except Exception as error:  # decoders raise nearly anything on wild bytes
        raise BadImage("not an image", f"none of {', '.join(FORMATS)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage("too large", f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
    try:
        yield image
    except Exception as error:
        raise BadImage("corrupt", f"{type(error).__name__}: {error}") from error


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    return image.convert("L")
