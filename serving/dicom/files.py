"""Reads and checks the picture attributes of a DICOM file before anything is decoded."""

import io
from dataclasses import dataclass

from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from core.images import BadImage
from serving.dicom.attributes import text, whole

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
# Baseline, extended, lossless and first-order lossless: one decoder reads them all.
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
SYNTAXES = (*NATIVE, *JPEG, *JPEG_LS, *JPEG_2000, uid.RLELossless)

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_FLOATS = ("FloatPixelData", "DoubleFloatPixelData")
_PICTURE = [
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "ModalityLUTSequence", "NumberOfFrames",
    "PhotometricInterpretation", "PixelData", "PixelRepresentation", "PlanarConfiguration",
    "PresentationLUTShape", "RescaleIntercept", "RescaleSlope", "Rows", "SamplesPerPixel",
    "VOILUTFunction", "VOILUTSequence", "WindowCenter", "WindowWidth", *_FLOATS,
]  # fmt: skip
_TAGS = [tag for name in _PICTURE if (tag := tag_for_keyword(name)) is not None]


@dataclass(frozen=True, kw_only=True)
class File:
    """A DICOM file of one picture.

    Attributes:
      dataset: the attributes of the picture, unchanged.
      syntax: one of `SYNTAXES`.
      rows, columns: at least 1; rows times columns is at most the allowed number of pixels.
      colours: values per pixel, 1 or 3.
      photometric: its photometric interpretation.
      allocated: bits per uncompressed value, 8 or 16.
      bits: how many of them hold the value, 1 to 16.
      shift: unused bits below them.
      signed: whether values are in two's complement.
    """

    dataset: Dataset
    syntax: str
    rows: int
    columns: int
    colours: int
    photometric: str
    allocated: int
    bits: int
    shift: int
    signed: bool

    @property
    def little_endian(self) -> bool:
        """Whether the file's numbers are little-endian."""
        return self.syntax != uid.ExplicitVRBigEndian


def read(content: bytes, max_pixels: int) -> File:
    """Reads a file's attributes and rejects files that cannot be displayed.

    Raises:
      BadImage: as `serving.dicom.to_png`; or any exception of pydicom.
    """
    dataset, syntax = _dataset(content)
    if "PixelData" not in dataset:
        for name in _FLOATS:
            if name in dataset:
                raise BadImage("not supported", f"its pixels are floating-point numbers ({name})")
        raise BadImage("no picture", "the DICOM file has no pixels")
    frames = whole(dataset, "NumberOfFrames", 0, 2**31, otherwise=1)
    if frames > 1:
        raise BadImage("several frames", f"the DICOM file has {frames} frames; send one radiograph")
    rows, columns = whole(dataset, "Rows", 1, 65_535), whole(dataset, "Columns", 1, 65_535)
    if rows * columns > max_pixels:
        raise BadImage("too large", f"{columns} x {rows} pixels, more than {max_pixels:,}")
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in _GREY + _COLOUR:
        known = ", ".join(_GREY + _COLOUR)
        raise BadImage("not supported", f"its PhotometricInterpretation is not one of {known}")
    colours = 1 if photometric in _GREY else 3
    if whole(dataset, "SamplesPerPixel", 1, 4, otherwise=colours) != colours:
        raise BadImage("corrupt", "its SamplesPerPixel and PhotometricInterpretation differ")
    allocated = whole(dataset, "BitsAllocated", 1, 64)
    if allocated not in (8, 16):
        raise BadImage("not supported", f"its BitsAllocated is {allocated}, not 8 or 16")
    bits = whole(dataset, "BitsStored", 1, allocated)
    high_bit = whole(dataset, "HighBit", bits - 1, allocated - 1, otherwise=bits - 1)
    return File(
        dataset=dataset,
        syntax=syntax,
        rows=rows,
        columns=columns,
        colours=colours,
        photometric=photometric,
        allocated=allocated,
        bits=bits,
        shift=high_bit + 1 - bits,
        signed=whole(dataset, "PixelRepresentation", 0, 1) == 1,
    )


def _dataset(content: bytes) -> tuple[Dataset, str]:
    """Returns the attributes of the picture and the transfer syntax.

    Not with `pydicom.dcmread`, which would inflate a deflated file to any size.
    """
    stream = io.BytesIO(content)
    stream.seek(132 if content[128:132] == b"DICM" else 0)
    header = read_dataset(stream, False, True, stop_when=_is_past_header)
    syntax = text(header, "TransferSyntaxUID") or _guessed(content[stream.tell() :][:6])
    if syntax not in SYNTAXES:
        named = f", {uid.UID(syntax).name}," if syntax in uid.UID_dictionary else ""
        raise BadImage(
            "not supported",
            f"its TransferSyntaxUID{named} is not supported; store it uncompressed or as JPEG-LS",
        )
    explicit, little = syntax != uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    return read_dataset(stream, not explicit, little, specific_tags=_TAGS), syntax


def _is_past_header(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _guessed(start: bytes) -> str:
    """Returns the transfer syntax of a file that does not name it, from its first attribute."""
    if start[4:6].decode("ascii", "replace") not in set(VR):
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if start[0] == 0 else uid.ExplicitVRLittleEndian
