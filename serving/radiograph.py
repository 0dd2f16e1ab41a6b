"""Reads an image that a client sent, by its content, and says why it may not be a chest radiograph."""

import base64
import binascii
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from core.images import FORMATS, BadImage, grey, is_plain, opened, to_png
from serving import dicom

# 99 in 100 frontal radiographs of both datasets are within these bounds, as a test counts.
_LEAST_SIDE = 128  # pixels; each covers 3 mm of a chest of 40 cm
_WIDTH_TO_HEIGHT = (0.6, 2.0)
_MEAN_SATURATION = 15.0  # of 255; radiographs with a coloured mark are below
_LEAST_DEVIATION = 12.0  # of the grey values, of 255
_SHOWN_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """An image as TensorFlow reads it, and the doubts about it.

    Attributes:
      content: the bytes of an upright JPEG or PNG.
      doubts: sentences; empty if it looks like a frontal chest radiograph.
      width, height, mode: as `components.data.facts.Facts` has them.
    """

    content: bytes
    doubts: tuple[str, ...]
    width: int
    height: int
    mode: str


def read(encoded: str | bytes, max_pixels: int) -> Radiograph:
    """Reads one image from a client.

    There are doubts if its shorter side has fewer than 128 pixels, if its width is not 0.6 to 2 times its
    height, or if it is in colour.

    Args:
      encoded: a JPEG, PNG, WebP or DICOM file as bytes, or its base64 as text.
      max_pixels: the most pixels that it may have.

    Raises:
      BadImage: `kind` is `not base64`, or see `core.images.opened` and `serving.dicom.to_png`.
    """
    if isinstance(encoded, str):
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise BadImage("not base64", "the text cannot be decoded") from None
    else:
        content = encoded
    if dicom.is_dicom(content):
        content = dicom.to_png(content, max_pixels)
    try:
        with opened(content, max_pixels) as image:
            plain = is_plain(image, content)
            (width, height), mode = image.size, image.mode
            doubts = (*_doubts_about_size(*image.size), *_doubts_about_colour(image))
    except BadImage as error:
        if error.kind == "not an image":
            raise BadImage(
                error.kind, f"unknown format; expected {', '.join(FORMATS)} or DICOM"
            ) from None
        raise
    return Radiograph(
        content=content if plain else to_png(content),
        doubts=doubts,
        width=width,
        height=height,
        mode=mode,
    )


def _doubts_about_size(width: int, height: int) -> list[str]:
    doubts = []
    if min(width, height) < _LEAST_SIDE:
        doubts.append(f"it is too small, {width} x {height} pixels")
    if not _WIDTH_TO_HEIGHT[0] <= width / height <= _WIDTH_TO_HEIGHT[1]:
        doubts.append(f"its shape, {width} x {height}, is unusual for a frontal chest radiograph")
    return doubts


def _doubts_about_colour(image: Image.Image) -> list[str]:
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I"):
        return []
    image.draft("RGB", (64, 64))
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    small = image.reduce(max(1, min(image.size) // 64))
    colours = np.asarray(small.convert("RGB"), np.int16)
    saturation = float((colours.max(axis=-1) - colours.min(axis=-1)).mean())
    return [] if saturation <= _MEAN_SATURATION else ["it is in colour"]


def doubts_about_pixels(pixels: np.ndarray) -> list[str]:
    """Returns the doubts about float32 pixels in 0..255, of any shape."""
    return [] if float(pixels.std()) >= _LEAST_DEVIATION else ["it is nearly blank"]


def shown(content: bytes) -> Image.Image:
    """Returns the picture upright in grey, with a longer side of at most 512 pixels.

    Raises:
      BadImage: see `core.images.opened`.
    """
    with opened(content) as image:
        if image.format == "JPEG":
            image.draft("L", (_SHOWN_SIDE, _SHOWN_SIDE))
        picture = grey(ImageOps.exif_transpose(image))
        picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        return picture


def png(picture: Image.Image) -> str:
    """Returns a picture as the base64 of a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()
