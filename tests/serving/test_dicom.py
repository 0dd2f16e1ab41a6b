import functools
import io
import struct
import tracemalloc
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from core.images import MAX_PIXELS, BadImage
from serving import dicom as dicoms
from serving import radiograph
from tests.serving import dcmtk
from tests.serving.files import PATIENT, dicom, encapsulated, encoded

# Every value that 12 and 8 bits hold.
DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SIGNED = (DEEP.astype(np.int32) - 2048).astype(np.int16)
SHALLOW = (DEEP % 256).astype(np.uint8)
CURVE = np.round((np.arange(4096) / 4095) ** 2 * 4095).astype(int)
WINDOW: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 1500}


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(dicoms.to_png(content, MAX_PIXELS))))


def refusal(content: bytes) -> BadImage:
    with pytest.raises(BadImage) as caught:
        dicoms.to_png(content, MAX_PIXELS)
    assert PATIENT not in str(caught.value)
    return caught.value


def is_shown(content: bytes) -> bool:
    try:
        return bool(dicoms.to_png(content, MAX_PIXELS))
    except BadImage:
        return False


def require_as_dcmtk(content: bytes, bits: int = 8) -> None:
    """Checks a picture of grey against DCMTK's, which is up to a step of 2**bits darker."""
    ours, theirs = shown(content), dcmtk.shown(content)
    assert theirs is not None
    white = 255 if ours.dtype == np.uint8 else 65_535
    assert np.abs(ours / white - theirs).max() < 1.01 / 2**bits


def table(start: int, entries: Any, bits: int, *, kind: str = "<u2") -> Sequence:
    """Returns the sequence of one look-up table."""
    item = Dataset()
    descriptor = [len(entries) % 65_536, start, bits]
    item.add_new("LUTDescriptor", "SS" if start < 0 else "US", descriptor)
    item.add_new("LUTData", "OW", np.asarray(entries, kind).tobytes())
    return Sequence([item])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("values", "bits", "attributes"),
    [
        pytest.param(SHALLOW, 8, {}, id="eight bits"),
        pytest.param(SHALLOW % 128, 7, {}, id="seven bits"),
        pytest.param(DEEP, 12, {}, id="twelve bits"),
        pytest.param(DEEP * 16 + 5, 16, {}, id="sixteen bits"),
        pytest.param(SIGNED, 12, {}, id="signed"),
        pytest.param(DEEP | 0x5000, 12, {}, id="bits above those stored"),
        pytest.param((DEEP | 0x7000).view(np.int16), 12, {}, id="signed, bits above"),
        pytest.param(DEEP << 4, 12, {"HighBit": 15}, id="the upper bits"),
        pytest.param(DEEP << 2 | 1, 12, {"HighBit": 13}, id="bits in between"),
        pytest.param(DEEP, 12, WINDOW, id="window"),
        pytest.param(SHALLOW, 8, {"WindowCenter": 100, "WindowWidth": 50}, id="window, eight bits"),
        pytest.param(SIGNED, 12, {"WindowCenter": 0, "WindowWidth": 500}, id="window, signed"),
        pytest.param(DEEP, 12, {**WINDOW, "WindowWidth": 1}, id="window of one"),
        pytest.param(DEEP, 12, {**WINDOW, "WindowWidth": 2}, id="window of two"),
        pytest.param(DEEP, 12, {"WindowCenter": [2000, 9], "WindowWidth": [1500, 5]}, id="windows"),
        pytest.param(DEEP, 12, {**WINDOW, "VOILUTFunction": "SIGMOID"}, id="sigmoid"),
        pytest.param(
            DEEP,
            12,
            {
                "RescaleSlope": -2,
                "RescaleIntercept": 1000,
                "WindowCenter": -3000,
                "WindowWidth": 2000,
            },
            id="window, falling",
        ),
        pytest.param(DEEP, 12, {"RescaleSlope": -2, "RescaleIntercept": 1000}, id="falling"),
        pytest.param(DEEP, 12, {"RescaleIntercept": 1000, **WINDOW}, id="intercept alone"),
        pytest.param(DEEP, 12, {"RescaleSlope": 2, **WINDOW}, id="slope alone"),
        pytest.param(
            DEEP, 12, {"RescaleSlope": 0, "RescaleIntercept": 900, **WINDOW}, id="slope of zero"
        ),
        pytest.param(DEEP, 12, {**WINDOW, "WindowWidth": 0}, id="window of zero"),
        pytest.param(DEEP, 12, {**WINDOW, "WindowWidth": 0.5}, id="window of less than one"),
        pytest.param(DEEP, 12, {"VOILUTSequence": table(0, CURVE, 12)}, id="table"),
        pytest.param(DEEP, 12, {"VOILUTSequence": table(0, CURVE // 16, 8)}, id="table of eight"),
        pytest.param(
            DEEP, 12, {"VOILUTSequence": table(0, CURVE // 16, 8, kind="u1")}, id="table, packed"
        ),
        pytest.param(
            DEEP, 12, {"VOILUTSequence": table(900, CURVE[::8], 12)}, id="table of a part"
        ),
        pytest.param(
            DEEP,
            12,
            {
                "VOILUTSequence": table(-500, CURVE[::2], 12),
                "RescaleSlope": 1,
                "RescaleIntercept": -1000,
            },
            id="table from below zero",
        ),
        pytest.param(
            np.arange(65_536, dtype=np.uint16).reshape(256, 256),
            16,
            {"VOILUTSequence": table(0, np.arange(65_536)[::-1], 16)},
            id="table of 65,536",
        ),
        pytest.param(
            DEEP * 16, 16, {"VOILUTSequence": table(40_000, CURVE, 12)}, id="table from 40,000"
        ),
        pytest.param(
            DEEP, 12, {"VOILUTSequence": table(0, CURVE, 12), **WINDOW}, id="table and window"
        ),
        pytest.param(
            DEEP,
            12,
            {"VOILUTSequence": Sequence([*table(0, CURVE, 12), *table(0, CURVE[::-1], 12)])},
            id="tables",
        ),
        pytest.param(
            DEEP, 12, {"ModalityLUTSequence": table(0, CURVE * 16, 16)}, id="modality table"
        ),
        pytest.param(
            DEEP, 12, {"ModalityLUTSequence": table(0, CURVE, 12)}, id="modality table of twelve"
        ),
        pytest.param(
            SIGNED,
            12,
            {"ModalityLUTSequence": table(-2048, CURVE * 16, 16)},
            id="modality table, signed",
        ),
        pytest.param(
            DEEP,
            12,
            {
                "ModalityLUTSequence": table(0, CURVE * 16, 16),
                "WindowCenter": 30_000,
                "WindowWidth": 9000,
            },
            id="modality table and window",
        ),
        pytest.param(
            DEEP,
            12,
            {
                "ModalityLUTSequence": table(0, CURVE * 16, 16),
                "VOILUTSequence": table(20_000, CURVE, 12),
            },
            id="modality table and table",
        ),
        pytest.param(DEEP, 12, {"PixelPaddingValue": 0}, id="padding"),
        pytest.param(DEEP, 12, {"PresentationLUTShape": "INVERSE"}, id="inverse"),
        pytest.param(DEEP, 12, {"PresentationLUTShape": "IDENTITY"}, id="identity"),
    ],
)
def test_grey_is_shown_as_dcmtk_shows_it(
    values: np.ndarray, bits: int, attributes: dict[str, Any], photometric: str
) -> None:
    content = dicom(values, bits=bits, photometric=photometric, **attributes)
    require_as_dcmtk(content, min(bits, 8))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_the_numbers_are_grey_is_shown_as_dcmtk_shows_it(data: st.DataObject) -> None:
    bits = data.draw(st.integers(8, 16))
    kind = data.draw(st.sampled_from([np.uint16, np.int16]))
    values = np.random.default_rng(bits).integers(0, 65_536, (16, 16)).astype(np.uint16)
    attributes: dict[str, Any] = {"HighBit": data.draw(st.integers(bits - 1, 15))}
    if data.draw(st.booleans()):
        attributes["RescaleSlope"] = data.draw(st.sampled_from([1, -1, 2, -3]))
        attributes["RescaleIntercept"] = data.draw(st.integers(-5000, 5000))
    if data.draw(st.booleans()):
        attributes["WindowCenter"] = data.draw(st.integers(-9000, 9000))
        attributes["WindowWidth"] = data.draw(st.integers(1, 9000))
        attributes["VOILUTFunction"] = data.draw(st.sampled_from(["LINEAR", "SIGMOID"]))
    photometric = data.draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
    require_as_dcmtk(dicom(values.view(kind), bits=bits, photometric=photometric, **attributes))


def test_twelve_bits_are_shown_from_none_to_all_that_can_be_stored() -> None:
    assert np.array_equal(shown(dicom(DEEP, bits=12)), np.round(DEEP / 4095 * 65_535))


def test_a_window_is_applied_after_rescaling() -> None:
    content = dicom(
        DEEP, bits=12, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3000, WindowWidth=2001
    )
    # PS3.3 C.11.2.1.2.1, scaled to all that can be stored
    expected = ((DEEP * 2.0 - 100 - 2999.5) / 2000 + 0.5).clip(0, 1) * 65_535
    assert np.abs(shown(content) - expected).max() <= 1


@pytest.mark.parametrize("width", [0.5, 1, 3, 1500])
def test_an_exact_window_is_shown_as_pydicom_shows_it(width: float) -> None:
    # DCMTK takes it for a linear one.
    content = dicom(
        DEEP, bits=12, WindowCenter=2000, WindowWidth=width, VOILUTFunction="LINEAR_EXACT"
    )
    expected = apply_windowing(DEEP, pydicom.dcmread(io.BytesIO(content))) / 4095 * 65_535
    assert np.abs(shown(content) - expected).max() <= 1


def test_colours_are_kept(picture) -> None:
    values = np.stack([picture(60, 50, seed) for seed in range(3)], axis=-1)
    for content in (
        dicom(values, photometric="RGB"),
        dicom(
            np.moveaxis(values, -1, 0).reshape(values.shape),
            photometric="RGB",
            PlanarConfiguration=1,
        ),
    ):
        assert np.array_equal(shown(content), values)
    luma = np.asarray(Image.fromarray(values).convert("YCbCr"))
    close = shown(dicom(luma, photometric="YBR_FULL")).astype(int) - values
    assert np.abs(close).max() <= 3


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"WindowCenter": "", "WindowWidth": ""},
        {"VOILUTFunction": ""},
        {"VOILUTSequence": Sequence()},
        {"VOILUTSequence": Sequence([Dataset()])},
        {"ModalityLUTSequence": Sequence([Dataset()])},
        {"PresentationLUTShape": ""},
        {"NumberOfFrames": ""},
        {"NumberOfFrames": 0},
        {"PlanarConfiguration": 1},
        {"PhotometricInterpretation": "monochrome2"},
        {"WindowCenter": 5},
        {"WindowWidth": 5},
        {"ImageComments": f"converted from {DeflatedExplicitVRLittleEndian}"},
    ],
    ids=str,
)
def test_what_is_empty_or_says_nothing_is_passed_over(attributes: dict[str, Any]) -> None:
    assert np.array_equal(shown(dicom(DEEP, bits=12, **attributes)), shown(dicom(DEEP, bits=12)))


def without(name: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom(DEEP, bits=12)))
    delattr(dataset, name)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def half_a_table(name: str) -> Sequence:
    sequence = table(0, CURVE, 12)
    delattr(sequence[0], name)
    return sequence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *(
            (without(name), f"its {name} is missing")
            for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
        ),
        (without("PhotometricInterpretation"), "PhotometricInterpretation"),
        *(
            (dicom(DEEP, bits=12, **{name: value}), f"its {name}")
            for name, value in [
                ("Rows", 0),
                ("BitsStored", 17),
                ("BitsStored", 0),
                ("HighBit", 7),
                ("HighBit", 16),
                ("BitsAllocated", 32),
                ("BitsAllocated", 12),
                ("SamplesPerPixel", 3),
                ("PixelRepresentation", 2),
                ("PhotometricInterpretation", "PALETTE COLOR"),
            ]
        ),
        (dicom(DEEP, bits=12, Rows=65), "its PixelData is shorter"),
        *(
            (
                dicom(DEEP, bits=12, **{"RescaleSlope": 1, "RescaleIntercept": 1, **WINDOW, **odd}),
                f"its {next(iter(odd))}",
            )
            for odd in (
                {"RescaleSlope": "nan"},
                {"RescaleIntercept": "inf"},
                {"WindowCenter": "nan"},
                {"WindowWidth": "-inf"},
                {"VOILUTFunction": "CUBIC"},
            )
        ),
        (dicom(DEEP, bits=12, RescaleSlope="1", RescaleIntercept="1e300"), "RescaleIntercept give"),
        *(
            (dicom(DEEP, bits=12, **{name: half_a_table(half)}), f"of its {name}")
            for name in ("ModalityLUTSequence", "VOILUTSequence")
            for half in ("LUTDescriptor", "LUTData")
        ),
        (dicom(DEEP, bits=12, VOILUTSequence=table(0, CURVE, 17)), "VOILUTSequence have 17 bits"),
        (dicom(DEEP, bits=12, VOILUTSequence=table(0, CURVE, 8)), "VOILUTSequence exceeds"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(content: bytes, words: str) -> None:
    assert words in str(refusal(content))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (dicom(None), "no picture"),
        (b"\0" * 128 + b"DICM", "no picture"),
        (dicom(None, FloatPixelData=b"\0" * 16), "not supported"),
        (dicom(SHALLOW, NumberOfFrames=2), "several frames"),
        (dicom(SHALLOW, Rows=60_000, Columns=60_000), "too large"),
        (dicom(SHALLOW, photometric="PALETTE COLOR"), "not supported"),
        (dicom(SHALLOW)[:-8], "corrupt"),
        (encapsulated(dicom(SHALLOW), JPEG2000Lossless, b"text"), "corrupt"),
        (encapsulated(dicom(SHALLOW), HTJ2KLossless, b"text"), "not supported"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(content: bytes, kind: str) -> None:
    assert refusal(content).kind == kind


def meta_of(content: bytes) -> int:
    """Returns where a file's header ends."""
    return 144 + struct.unpack_from("<I", content, 140)[0]


def written(implicit: bool, little: bool) -> bytes:
    """Returns a dataset alone, without a header."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(DEEP, bits=12, **WINDOW)))
    dataset.file_meta.TransferSyntaxUID = (
        ("1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1")
        if little
        else ("1.2.840.10008.1.2.2")
    )
    if not little:
        dataset.PixelData = DEEP.astype(">u2").tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=little)
    content = buffer.getvalue()
    return content[meta_of(content) :]


@pytest.mark.parametrize(
    "content",
    [
        dicom(DEEP, bits=12, **WINDOW)[132:],
        written(implicit=True, little=True),
        written(implicit=False, little=True),
        written(implicit=False, little=False),
    ],
    ids=["no preamble", "implicit", "explicit", "big endian"],
)
def test_a_file_without_preamble_or_header_is_read(content: bytes) -> None:
    read = radiograph.read(content, MAX_PIXELS)
    assert np.array_equal(
        Image.open(io.BytesIO(read.content)), shown(dicom(DEEP, bits=12, **WINDOW))
    )


def test_bytes_in_words_of_big_endian_are_read() -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(SHALLOW)))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    dataset.PixelData = SHALLOW.view("<u2").byteswap().tobytes()
    dataset["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=False)
    assert np.array_equal(shown(buffer.getvalue()), SHALLOW)
    require_as_dcmtk(buffer.getvalue())


@pytest.mark.parametrize("implicit", [False, True])
def test_a_deflated_file_is_refused_and_never_inflated(implicit: bool) -> None:
    head = b"\0" * 128 + b"DICM\2\0\x10\0" + (b"\x16\0\0\0" if implicit else b"UI\x16\0")
    bomb = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(16)) + bomb.flush()
    tracemalloc.start()
    refusal(head + DeflatedExplicitVRLittleEndian.encode() + body)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("dcmcjpeg", ["--encode-lossless-sv1"]),
        *(
            ("dcmcjpeg", ["--encode-lossless", "--selection-value", str(value)])
            for value in range(1, 8)
        ),
        ("dcmcrle", []),
        ("dcmcjpls", ["--encode-lossless"]),
    ],
)
@pytest.mark.parametrize(
    ("values", "bits", "photometric"),
    [
        (DEEP, 12, "MONOCHROME1"),
        (SIGNED, 12, "MONOCHROME2"),
        (DEEP * 16 + 5, 16, "MONOCHROME2"),
        (SHALLOW, 8, "MONOCHROME2"),
        (np.stack([SHALLOW, SHALLOW.T, SHALLOW[::-1]], axis=-1), 8, "RGB"),
    ],
    ids=["twelve", "signed", "sixteen", "eight", "colour"],
)
def test_what_is_compressed_without_loss_is_shown_as_it_was(
    values: np.ndarray, bits: int, photometric: str, program: str, options: list[str]
) -> None:
    content = dicom(values, bits=bits, photometric=photometric)
    made = dcmtk.compressed(content, program, *options)
    assert pydicom.dcmread(io.BytesIO(made)).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(shown(made), shown(content))


@pytest.mark.parametrize(
    ("option", "values", "bits"),
    [("--encode-baseline", SHALLOW // 2 + 60, 8), ("--encode-extended", DEEP, 12)],
)
def test_jpeg_with_loss_is_shown_as_dcmtk_shows_it(
    option: str, values: np.ndarray, bits: int
) -> None:
    made = dcmtk.compressed(dicom(values, bits=bits), "dcmcjpeg", option, "--quality", "95")
    require_as_dcmtk(made)


def test_jpeg_2000_is_read(picture) -> None:
    values = picture(64, 64)
    for frame in (
        encoded(values, "JPEG2000", no_jp2=True),
        encoded(values, "JPEG2000"),  # a file in place of a code stream
    ):
        assert np.array_equal(shown(encapsulated(dicom(values), JPEG2000Lossless, frame)), values)
    signed = imagecodecs.jpeg2k_encode(SIGNED, level=0, codecformat="j2k")
    content = encapsulated(dicom(SIGNED, bits=12), JPEG2000Lossless, signed)
    assert np.array_equal(shown(content), shown(dicom(SIGNED, bits=12)))


TALL = np.zeros((65, 64), np.uint8)
HUGE = b"\xff\xc1\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (JPEGBaseline8Bit, encoded(TALL, "JPEG")),
        (JPEGBaseline8Bit, encoded(np.zeros((64, 64, 3), np.uint8), "JPEG")),
        (JPEG2000Lossless, encoded(TALL, "JPEG2000", no_jp2=True)),
        (JPEGLSLossless, imagecodecs.jpegls_encode(TALL)),
        (JPEGLosslessSV1, imagecodecs.jpeg8_encode(TALL, lossless=True)),
        (JPEGExtended12Bit, b"\xff\xd8" + HUGE),
        (JPEGExtended12Bit, b"\xff\xd8\xff\xff\xff\xfe\x00\x02" + HUGE),
    ],
)
def test_a_frame_larger_than_the_file_says_is_not_decoded(syntax: str, frame: bytes) -> None:
    error = refusal(encapsulated(dicom(np.zeros((64, 64), np.uint8)), syntax, frame))
    assert "differ in size" in str(error)


def test_no_marker_hides_the_size_of_a_frame() -> None:
    # TEM has no length: a decoder passes over two bytes, not over what looks like its segment.
    real = b"\xff\xc1\x00\x0b\x08\x00\x40\x00\x40\x01\x01\x11\x00"
    frame = b"\xff\xd8\xff\x01" + struct.pack(">H", 2 + len(HUGE)) + HUGE + real + b"\xff\xd9"
    error = refusal(encapsulated(dicom(SHALLOW), JPEGExtended12Bit, frame))
    assert "does not match its TransferSyntaxUID" in str(error)


def test_rle_is_decoded_to_no_more_than_the_file_says() -> None:
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * (1 << 20)
    content = encapsulated(dicom(SHALLOW), RLELossless, frame)
    tracemalloc.start()
    assert refusal(content).kind == "corrupt"
    assert tracemalloc.get_traced_memory()[1] < 16 << 20  # decoded it has 128 MB
    tracemalloc.stop()


def test_rle_that_is_too_short_is_refused() -> None:
    upper, lower = b"\x81\x00" * 32, b"\x81\x00" * 31  # of 4096 and 3968 bytes
    frame = struct.pack("<16I", 2, 64, 64 + len(upper), *[0] * 13) + upper + lower
    error = refusal(encapsulated(dicom(DEEP, bits=12), RLELossless, frame))
    assert "its PixelData is shorter" in str(error)


@pytest.mark.parametrize(
    ("program", "option"),
    [
        ("dcmcjpeg", "--encode-lossless-sv1"),
        ("dcmcjpeg", "--encode-extended"),
        ("dcmcrle", "--quiet"),
        ("dcmcjpls", "--encode-lossless"),
    ],
)
def test_a_frame_that_is_cut_off_is_refused(program: str, option: str) -> None:
    made = pydicom.dcmread(
        io.BytesIO(dcmtk.compressed(dicom(DEEP, bits=12), program, option)), force=True
    )
    whole = pydicom.encaps.get_frame(made.PixelData, 0, number_of_frames=1)
    for length in (70, len(whole) // 2, len(whole) - 30):
        content = encapsulated(
            dicom(DEEP, bits=12), made.file_meta.TransferSyntaxUID, whole[:length]
        )
        assert refusal(content).kind == "corrupt"


PLAIN = dicom(DEEP, bits=12, RescaleSlope="1", RescaleIntercept="0", **WINDOW)


@functools.cache
def compressed() -> list[bytes]:
    plain = dicom(DEEP, bits=12)
    return [
        dcmtk.compressed(plain, "dcmcjpeg", "--encode-extended"),
        dcmtk.compressed(plain, "dcmcjpeg", "--encode-lossless-sv1"),
        dcmtk.compressed(plain, "dcmcjpls"),
        dcmtk.compressed(plain, "dcmcrle"),
        encapsulated(plain, JPEG2000Lossless, imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k")),
    ]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_is_changed_in_a_file_it_is_shown_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([PLAIN, *compressed()])))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        told = radiograph.read(bytes(content), 10_000).content[:4]
    except BadImage as error:
        told = str(error).encode()
    assert told == b"\x89PNG" or PATIENT.encode() not in told


ODD = [
    b"",
    b"\0",
    b" ",
    b"\\",
    b"-1",
    b"1E5",
    b"nan",
    b"1,5",
    b"2\\3",
    b"\xff" * 8,
    PATIENT.encode(),
]
NAMES = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "ModalityLUTSequence", "PresentationLUTShape",
]  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(["US", "SS", "UL", "FD", "DS", "IS", "CS", "LO", "OB", "UN"]),
    st.sampled_from(ODD),
)
def test_an_odd_attribute_is_passed_over_or_refused_by_its_name(
    name: str, representation: str, value: bytes
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(PLAIN))
    if name in dataset:
        delattr(dataset, name)
    end = pydicom.datadict.tag_for_keyword(name)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    plain = buffer.getvalue()
    at = meta_of(plain)
    while struct.unpack_from("<HH", plain, at) < (end >> 16, end & 0xFFFF):
        long = plain[at + 4 : at + 6] in (b"OW", b"OB", b"SQ", b"UN", b"UT")
        at += (
            12 + struct.unpack_from("<I", plain, at + 8)[0]
            if long
            else (8 + struct.unpack_from("<H", plain, at + 6)[0])
        )
    value += b" " * (len(value) % 2)
    long = representation in ("OB", "UN")
    head = struct.pack("<HH", end >> 16, end & 0xFFFF) + representation.encode()
    head += struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
    content = plain[:at] + head + value + plain[at:]
    if not is_shown(content):
        error = refusal(content)
        assert name in str(error) or (name, error.kind) == ("NumberOfFrames", "several frames")


@settings(max_examples=200, deadline=None, derandomize=True)
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
