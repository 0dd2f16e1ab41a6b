"""Every file of two public collections is read as DCMTK reads it, or refused with a reason."""

import io
from pathlib import Path

import data_store
import numpy as np
import pydicom
import pytest
from PIL import Image

from core.images import MAX_PIXELS, BadImage
from serving import dicom as dicoms
from tests.serving import dcmtk

COLLECTIONS = (
    Path(pydicom.__file__).parent / "data",  # pydicom's own
    Path(data_store.__file__).parent / "data",  # pydicom-data's
)
FILES = sorted(
    file
    for directory in COLLECTIONS
    for file in directory.rglob("*")
    if file.is_file() and dicoms.is_dicom(file.read_bytes())
)
# What DCMTK shows and we do not, and the words that say why.
REFUSED = {
    "OBXXXX1A.dcm": "PhotometricInterpretation",  # in a palette's colours
    "OBXXXX1A_expb.dcm": "PhotometricInterpretation",
    "OBXXXX1A_rle.dcm": "PhotometricInterpretation",
    "OT-PAL-8-face.dcm": "PhotometricInterpretation",
    "examples_palette.dcm": "PhotometricInterpretation",
    "SC_rgb_rle_32bit.dcm": "BitsAllocated is 32",
    "badVR.dcm": "NumberOfFrames",  # it is "1A"
    "image_dfl.dcm": "Deflated Explicit VR Little Endian, is not supported",
    "liver_1frame.dcm": "BitsAllocated is 1,",
    "liver_expb_1frame.dcm": "BitsAllocated is 1,",
    "rtdose_1frame.dcm": "BitsAllocated is 32",
    "rtdose_expb_1frame.dcm": "BitsAllocated is 32",
    "rtdose_rle_1frame.dcm": "BitsAllocated is 32",
}
# What we show and it does not: its data is a byte too long, and a JP2 file.
ALONE = {"SC_rgb_jpeg.dcm", "GDCMJ2K_TextGBR.dcm"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_read_as_another_reader_reads_it(file: Path) -> None:
    content = file.read_bytes()
    ours = shown(content)
    if isinstance(ours, BadImage):
        require_reason(file.name, content, ours)
        return
    assert file.name not in REFUSED
    if file.name in ALONE:
        return
    theirs = dcmtk.shown(content, 8)
    assert theirs is not None
    assert ours.shape == theirs.shape
    # Both round, colours twice.
    assert np.abs(ours - theirs).max() <= (2.01 if ours.ndim == 3 else 1.5) / 255


def shown(content: bytes) -> np.ndarray | BadImage:
    try:
        picture = Image.open(io.BytesIO(dicoms.to_png(content, MAX_PIXELS)))
    except BadImage as error:
        return error
    return np.asarray(picture) / (65_535 if picture.mode.startswith("I") else 255)


def require_reason(name: str, content: bytes, refusal: BadImage) -> None:
    assert name not in ALONE
    if refusal.kind == "no picture":
        assert "PixelData" not in pydicom.dcmread(io.BytesIO(content), force=True)
    elif refusal.kind != "several frames" and dcmtk.shown(content, 8) is not None:
        assert REFUSED[name] in str(refusal)


def test_the_collections_are_there() -> None:
    assert len(FILES) > 200
    assert REFUSED.keys() | ALONE <= {file.name for file in FILES}
