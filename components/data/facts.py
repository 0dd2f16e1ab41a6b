"""The facts that ingest records about an image file: size, hashes and statistics."""

import hashlib
from dataclasses import dataclass

import imagehash

from core.images import grey, opened, statistics

HASH_SIZE = 16

_HASH_INPUT = 4 * HASH_SIZE  # imagehash.phash shrinks to this side before its cosine transform


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about an image file.

    Attributes:
      sha256: of the file's bytes, 64 hexadecimal digits.
      width, height: in pixels, as stored (before an EXIF rotation).
      mode: Pillow's pixel mode, e.g. `L`, `RGB`, `RGBA`, `I;16`.
      perceptual_hash: 256 bits as 64 hexadecimal digits; near-identical pictures differ in few bits
        (imagehash's phash: signs of the low frequencies of a cosine transform).
      brightness, contrast, frame: see `images.statistics`.
    """

    sha256: str
    width: int
    height: int
    mode: str
    perceptual_hash: str
    brightness: float
    contrast: float
    frame: float


def inspect(content: bytes) -> Facts:
    """Decodes an image completely and returns its facts.

    Raises:
      BadImage: `kind` is `empty`, `not an image`, `too large` or `corrupt`.
    """
    with opened(content) as image:
        mode, (width, height) = image.mode, image.size
        # A JPEG decodes faster at reduced size. All of its data is still read, so that a truncated or
        # corrupt file is detected.
        image.draft(None, (_HASH_INPUT, _HASH_INPUT))
        picture = grey(image)
        perceptual_hash = imagehash.phash(picture, hash_size=HASH_SIZE)
        measured = statistics(picture)
    return Facts(
        sha256=hashlib.sha256(content).hexdigest(),
        width=width,
        height=height,
        mode=mode,
        perceptual_hash=str(perceptual_hash),
        **measured,
    )
