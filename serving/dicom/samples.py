"""Reads the stored pixel values of a DICOM file, compressed or not."""

import struct

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.utils import expand_ybr422

from core.images import BadImage
from serving.dicom.attributes import whole
from serving.dicom.files import JPEG_2000, JPEG_LS, NATIVE, File

# Markers that start a frame: ISO 10918-1, table B.1 (baseline, extended, progressive, lossless); ISO
# 14495-1, C.1.2.
_JPEG_STARTS, _JPEG_LS_STARTS = (0xC0, 0xC1, 0xC2, 0xC3), (0xF7,)
# Segments that may come before: tables, restart interval, application data, comment, JPEG-LS parameters.
_SEGMENTS = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE, 0xF8)


def stored(file: File) -> np.ndarray:
    """Returns the stored values without unused bits (PS3.5, 8.1.1).

    Returns:
      uint8 or uint16 [rows, columns] or [rows, columns, 3], in 0..2**bits - 1; signed values in two's
      complement.

    Raises:
      BadImage: of kind `corrupt`; or any exception of a decoder.
    """
    values = _native(file) if file.syntax in NATIVE else _decompressed(file)
    if values.dtype.kind == "i":
        values = values.view(f"u{values.dtype.itemsize}")
    if (file.shift, file.bits) == (0, 8 * values.dtype.itemsize):
        return values
    return np.asarray((values >> file.shift) & (2**file.bits - 1))


def _native(file: File) -> np.ndarray:
    data, element = file.dataset.PixelData, file.dataset["PixelData"]
    if element.is_undefined_length:
        raise BadImage(
            "corrupt", "its PixelData is compressed, but its TransferSyntaxUID says it is not"
        )
    if file.allocated == 8 and not file.little_endian and element.VR == "OW":
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    if file.photometric == "YBR_FULL_422":
        data = expand_ybr422(data, file.allocated)
    kind = np.dtype(f"u{file.allocated // 8}").newbyteorder("<" if file.little_endian else ">")
    count = file.rows * file.columns * file.colours
    if len(data) < count * kind.itemsize:
        raise BadImage("corrupt", "its PixelData is shorter than its Rows and Columns say")
    values = np.frombuffer(data, kind, count).astype(kind.newbyteorder("="), copy=False)
    by_plane = file.colours > 1 and whole(file.dataset, "PlanarConfiguration", 0, 1, otherwise=0)
    return _shaped(values, file, by_plane=bool(by_plane))


def _decompressed(file: File) -> np.ndarray:
    frame = get_frame(file.dataset.PixelData, 0, number_of_frames=1)
    if file.syntax == uid.RLELossless:
        return _of_rle(frame, file)
    if file.syntax in JPEG_2000:
        # Skip the header of a JP2 file, which some devices write.
        frame = frame[frame.index(b"\xff\x4f\xff\x51") :]
        _require_size(_size_of_jpeg_2000(frame), file)
        values = imagecodecs.jpeg2k_decode(frame)
    elif file.syntax in JPEG_LS:
        _require_size(_size_of_jpeg(frame, _JPEG_LS_STARTS), file)
        values = imagecodecs.jpegls_decode(frame)
    else:
        _require_size(_size_of_jpeg(frame, _JPEG_STARTS), file)
        if not frame.rstrip(b"\0\xff").endswith(b"\xd9"):
            # The decoder would fill the rest with grey.
            raise BadImage("corrupt", "the JPEG in the DICOM file is cut off")
        # Without conversion: the file says what the colours are; the decoder would guess.
        kind = None if file.colours == 1 else "RGB"
        values = imagecodecs.jpeg8_decode(frame, colorspace=kind, outcolorspace=kind)
    return _shaped(np.asarray(values), file, by_plane=False)


def _require_size(size: tuple[int, int, int], file: File) -> None:
    """Raises if frame and file differ in size, because a decoder allocates memory for the frame's size."""
    if size != (file.rows, file.columns, file.colours):
        raise BadImage("corrupt", "the DICOM file and the picture in it differ in size")


def _of_rle(frame: bytes, file: File) -> np.ndarray:
    kind = np.dtype(f"u{file.allocated // 8}")
    room = bytearray(file.rows * file.columns * file.colours * kind.itemsize)
    if len(imagecodecs.dicomrle_decode(frame, kind, out=room)) != len(room):
        raise BadImage("corrupt", "its PixelData is shorter than its Rows and Columns say")
    return _shaped(np.frombuffer(room, kind), file, by_plane=True)


def _shaped(values: np.ndarray, file: File, *, by_plane: bool) -> np.ndarray:
    if file.colours == 1:
        return values.reshape(file.rows, file.columns)
    if by_plane:
        return np.moveaxis(values.reshape(3, file.rows, file.columns), 0, -1)
    return values.reshape(file.rows, file.columns, 3)


def _size_of_jpeg(frame: bytes, starts: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns rows, columns and values per pixel, from the segment that starts the frame."""
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in starts:
            _, _, rows, columns, colours = struct.unpack_from(">HBHHB", frame, at + 2)
            return rows, columns, colours
        if marker not in _SEGMENTS:
            break
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise BadImage("corrupt", "its PixelData does not match its TransferSyntaxUID")


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int]:
    """Returns rows, columns and values per pixel, from the segment SIZ (ISO 15444-1, A.5.1)."""
    right, bottom, left, top = struct.unpack_from(">IIII", frame, 8)
    (colours,) = struct.unpack_from(">H", frame, 40)
    return bottom - top, right - left, colours
