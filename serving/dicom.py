"""DICOM files: from a radiograph as its device stored it to the picture as it is shown.

Grey values go through what PS3.3 C.11 and C.8.11.3 prescribe: rescaling (modality), window or look-up
table (values of interest), inversion of MONOCHROME1. Of all attributes only those of the picture are
read, so that nothing of the patient is ever in memory.
"""

import io
import logging
import warnings

import numpy as np
import pydicom
import pydicom.pixels as pixels
from PIL import Image
from pydicom import uid
from pydicom.encaps import get_frame

from components.images import BadImage

# What it says of an attribute that it cannot read might be the attribute.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

_PICTURE = [
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "ModalityLUTSequence", "NumberOfFrames",
    "PhotometricInterpretation", "PixelData", "PixelRepresentation", "PlanarConfiguration",
    "RescaleIntercept", "RescaleSlope", "Rows", "SamplesPerPixel", "VOILUTFunction", "VOILUTSequence",
    "WindowCenter", "WindowWidth",
]  # fmt: skip
_PLAIN = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_BY_PILLOW = (uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.JPEG2000)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def is_dicom(content: bytes) -> bool:
    """Returns whether a file says that it is DICOM (PS3.10, 7.1)."""
    return content[128:132] == b"DICM"


def to_png(content: bytes, max_pixels: int) -> bytes:
    """Returns the picture as a PNG of grey: 8 bits where that is all it has, else 16.

    Raises:
      BadImage: `kind` is `no picture`, `several frames`, `not supported`, `too large` or `corrupt`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _to_png(content, max_pixels)
    except BadImage:
        raise
    except Exception:
        # Not chained: the decoder's own words may quote the file.
        raise BadImage("corrupt", "the DICOM file cannot be decoded") from None


def _to_png(content: bytes, max_pixels: int) -> bytes:
    if uid.DeflatedExplicitVRLittleEndian.encode() in content:
        # Reading it would inflate all of it, to whatever size.
        raise BadImage(
            "not supported", "a deflated DICOM file; store it uncompressed or as JPEG-LS"
        )
    dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=_PICTURE)
    if "PixelData" not in dataset:
        raise BadImage("no picture", "the DICOM file holds no pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise BadImage("several frames", f"the DICOM file has {frames} frames; send one radiograph")
    if dataset.Rows * dataset.Columns > max_pixels:
        size = f"{dataset.Columns} x {dataset.Rows}"
        raise BadImage("too large", f"{size} pixels, more than {max_pixels:,}")
    values = _stored(dataset)
    if dataset.PhotometricInterpretation in _GREY:
        shown = _as_shown(dataset, values)
    elif dataset.PhotometricInterpretation in _COLOUR:
        shown = np.asarray(Image.fromarray(values).convert("L"), np.float64) / 255
    else:
        kind = "its photometric interpretation"
        raise BadImage("not supported", f"{kind} is none of {', '.join(_GREY + _COLOUR)}")
    if not np.isfinite(shown).all():
        raise BadImage("corrupt", "the DICOM file's rescaling gives no finite values")
    largest = 255 if dataset.BitsStored <= 8 else 65_535
    whole = (np.clip(shown, 0, 1) * largest).round()
    picture = Image.fromarray(whole.astype(np.uint8 if largest == 255 else np.uint16))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _stored(dataset: pydicom.Dataset) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        return pixels.pixel_array(dataset)
    if syntax not in (*_JPEG_LS, *_BY_PILLOW):
        known = ", ".join(one.name for one in (*_PLAIN, *_JPEG_LS, *_BY_PILLOW))
        raise BadImage("not supported", f"its transfer syntax is none of {known}")
    # The frame's own header is what a decoder makes room for.
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    size = _size_of_jpeg_ls(frame) if syntax in _JPEG_LS else _size(frame)
    if size != (dataset.Columns, dataset.Rows):
        raise BadImage("corrupt", "the DICOM file and the picture in it differ in size")
    plugin = "pyjpegls" if syntax in _JPEG_LS else "pillow"
    return pixels.pixel_array(dataset, decoding_plugin=plugin)


def _size(frame: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
        return image.size


def _size_of_jpeg_ls(frame: bytes) -> tuple[int, int]:
    start = frame.index(b"\xff\xf7")  # the start of frame of JPEG-LS (ISO 14495-1, C.2.2)
    rows, columns = (int.from_bytes(frame[i : i + 2]) for i in (start + 5, start + 7))
    return columns, rows


def _as_shown(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Returns float64 in 0..1, black to white: the window's range, or all that can be stored."""
    rescaled = pixels.apply_modality_lut(values, dataset)
    shown: np.ndarray = np.asarray(pixels.apply_voi_lut(rescaled, dataset), np.float64)
    if dataset.get("VOILUTSequence"):
        lowest, highest = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif dataset.get("ModalityLUTSequence"):
        lowest, highest = 0.0, 2.0 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    else:
        bits = dataset.BitsStored
        signed = dataset.PixelRepresentation == 1
        stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        lowest, highest = sorted(pixels.apply_rescale(np.array(stored), dataset).tolist())
    shown = (shown - lowest) / (highest - lowest)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return 1 - shown if inverted else shown
