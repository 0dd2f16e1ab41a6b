import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import JPEGLSLossless, RLELossless

from components.images import MAX_PIXELS, BadImage
from serving import dicom as dicoms
from serving import radiograph
from tests.serving.files import PATIENT, dicom, encoded


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(dicoms.to_png(content, MAX_PIXELS))))


@pytest.fixture
def deep(picture) -> np.ndarray:
    return picture(60, 50).astype(np.uint16) * 16 + 7


def test_eight_bits_are_shown_as_they_are(picture) -> None:
    values = picture(60, 50)
    assert np.array_equal(shown(dicom(values)), values)


def test_twelve_bits_are_shown_from_none_to_all_that_can_be_stored(deep) -> None:
    assert np.array_equal(shown(dicom(deep, bits=12)), np.round(deep / 4095 * 65535))


def test_the_inverted_kind_is_turned_round(picture) -> None:
    values = picture(60, 50)
    assert np.array_equal(shown(dicom(255 - values, photometric="MONOCHROME1")), values)


def test_a_window_is_applied_after_rescaling(deep) -> None:
    content = dicom(
        deep, bits=12, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3000, WindowWidth=2001
    )
    rescaled = deep * 2.0 - 100
    # PS3.3 C.11.2.1.2.1, scaled to all that can be stored
    expected = ((rescaled - 2999.5) / 2000 + 0.5).clip(0, 1) * 65535
    assert np.abs(shown(content) - expected).max() <= 1


def test_signed_values_are_shown(deep) -> None:
    signed = deep.astype(np.int16) - 2048
    assert np.array_equal(shown(dicom(signed, bits=12)), np.round(deep / 4095 * 65535))


def test_colours_become_grey(picture) -> None:
    values = np.stack([picture(60, 50)] * 3, axis=-1)
    assert np.abs(shown(dicom(values, photometric="RGB")).astype(int) - values[..., 0]).max() <= 1


def test_jpeg_ls_is_read(deep) -> None:
    plain = dicom(deep, bits=12)
    assert np.array_equal(shown(dicom(deep, bits=12, syntax=JPEGLSLossless)), shown(plain))


def encapsulated(values: np.ndarray, bits: int, syntax: str, frame: bytes) -> bytes:
    import pydicom
    from pydicom.encaps import encapsulate

    dataset = pydicom.dcmread(io.BytesIO(dicom(values, bits=bits)))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_jpeg_2000_is_read(picture) -> None:
    values = picture(64, 64)
    frame = encoded(values, "JPEG2000", no_jp2=True)
    assert np.array_equal(shown(encapsulated(values, 8, "1.2.840.10008.1.2.4.90", frame)), values)


def test_jpeg_is_read(picture) -> None:
    values = picture(64, 64)
    frame = encoded(values, "JPEG", quality=95)
    close = shown(encapsulated(values, 8, "1.2.840.10008.1.2.4.50", frame)).astype(int) - values
    assert np.abs(close).max() < 12


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        ("1.2.840.10008.1.2.4.50", encoded(np.zeros((65, 64), np.uint8), "JPEG")),
        ("1.2.840.10008.1.2.4.90", encoded(np.zeros((65, 64), np.uint8), "JPEG2000", no_jp2=True)),
        ("1.2.840.10008.1.2.4.80", b"\xff\xd8\xff\xf7\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"),
    ],
)
def test_a_frame_larger_than_the_file_says_is_not_decoded(syntax: str, frame: bytes) -> None:
    content = encapsulated(np.zeros((64, 64), np.uint8), 8, syntax, frame)
    with pytest.raises(BadImage, match="differ in size"):
        dicoms.to_png(content, MAX_PIXELS)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (dicom(None), "no picture"),
        (dicom(np.zeros((2, 4, 4), np.uint8)[0], NumberOfFrames=2), "several frames"),
        (dicom(np.zeros((4, 4), np.uint8), Rows=60000, Columns=60000), "too large"),
        (dicom(np.zeros((4, 4), np.uint8), photometric="PALETTE COLOR"), "not supported"),
        (dicom(np.zeros((4, 4), np.uint8), syntax=RLELossless), "not supported"),
        (dicom(np.zeros((4, 4), np.uint8))[:-8], "corrupt"),
        (b"\0" * 128 + b"DICM", "no picture"),
        (b"\0" * 128 + b"DICM" + b"\2\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99", "not supported"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(content: bytes, kind: str) -> None:
    with pytest.raises(BadImage) as caught:
        dicoms.to_png(content, MAX_PIXELS)
    assert caught.value.kind == kind
    assert PATIENT not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_changed_in_a_file_it_is_shown_or_refused(data: st.DataObject) -> None:
    content = bytearray(dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64), bits=12))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(132, 900))] = data.draw(st.integers(0, 255))
    try:
        read = radiograph.read(bytes(content), 10_000)
        told = read.content[:4]
    except BadImage as error:
        told = str(error).encode()
    assert told == b"\x89PNG" or PATIENT.encode() not in told


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["", "png", "jpeg", "webp", "dicom"]))
def test_whatever_the_bytes_they_are_read_or_refused(noise: bytes, kind: str) -> None:
    base = Image.linear_gradient("L").resize((40, 40))
    whole = {"": b"", "dicom": dicom(np.asarray(base))}
    start = whole[kind] if kind in whole else encoded(base, kind)
    for content in (start + noise, start[: len(noise)] + noise, noise + start):
        try:
            read = radiograph.read(content, 10_000)
        except BadImage:
            continue
        assert read.content
