import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.facts import Facts, inspect
from core.errors import UserError
from core.images import MAX_PIXELS, BadImage, content_of, for_tensorflow, to_png


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(picture) -> bytes:
    return encoded(Image.fromarray(picture(200, 160)), "JPEG", quality=90)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_content_decides_what_an_image_is(picture, kind: str) -> None:
    facts = inspect(encoded(Image.fromarray(picture(120, 90)).convert("RGB"), kind))
    assert (facts.width, facts.height, facts.mode) == (90, 120, "RGB")
    assert len(facts.sha256) == len(facts.perceptual_hash) == 64


def bits_apart(one: Facts, other: Facts) -> int:
    return (int(one.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)).bit_count()


def test_the_same_picture_stored_otherwise_is_nearly_the_same(picture) -> None:
    image = Image.fromarray(picture(300, 300))
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    first = inspect(encoded(image))
    for again in (
        encoded(image, "JPEG", quality=60),
        encoded(image.resize((150, 150))),
        encoded(image.convert("RGBA")),
        encoded(deep),
    ):
        assert bits_apart(first, inspect(again)) <= 24
    assert bits_apart(first, inspect(encoded(Image.fromarray(picture(300, 300, seed=1))))) > 60


def test_an_empty_file() -> None:
    with pytest.raises(BadImage) as caught:
        inspect(b"")
    assert caught.value.kind == "empty"


def test_a_file_that_is_no_image() -> None:
    for content in (b"<html>not found</html>", b"\0" * 1000, b"GIF89a" + b"\0" * 50):
        with pytest.raises(BadImage) as caught:
            inspect(content)
        assert caught.value.kind == "not an image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file(picture, kind: str) -> None:
    whole = encoded(Image.fromarray(picture(400, 400)), kind)
    with pytest.raises(BadImage) as caught:
        inspect(whole[: len(whole) * 2 // 3])
    assert caught.value.kind == "corrupt"


def test_a_decompression_bomb_is_not_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 100
    with pytest.raises(BadImage) as caught:
        inspect(encoded(Image.new("1", (side, side))))
    assert caught.value.kind == "too large"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_wild_bytes_are_refused_and_nothing_else(content: bytes) -> None:
    with pytest.raises(BadImage):
        inspect(content)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data) -> None:
    whole = bytearray(encoded(Image.linear_gradient("L").resize((64, 64)), "JPEG"))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(inspect(bytes(whole)), Facts)
    except BadImage as error:
        assert error.kind in ("not an image", "corrupt", "too large")  # noqa: PT017


def test_16_bits_become_8_without_clipping(picture) -> None:
    grey = picture(50, 40)
    stored = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    assert np.array_equal(Image.open(io.BytesIO(to_png(stored))), grey)


def test_what_tensorflow_reads_as_meant_stays_as_it_is(picture) -> None:
    for content in (jpeg(picture), encoded(Image.fromarray(picture(30, 30)))):
        assert for_tensorflow(content) is content


def test_a_turned_photograph_is_set_upright(picture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is at the right
    grey = picture(60, 40)
    content = for_tensorflow(encoded(Image.fromarray(grey), "JPEG", exif=exif, quality=95))
    upright = Image.open(io.BytesIO(content))
    assert upright.size == (60, 40)
    difference = np.asarray(upright).astype(int) - np.rot90(grey, -1).astype(int)
    assert abs(difference).max() < 12


class Stored:
    """A file of an object store that answers with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __str__(self) -> str:
        return "gs://bucket/image.png"

    def read_bytes(self) -> bytes:
        raise self.error


def test_a_file_that_is_away_or_unreadable_is_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file") as caught:
        content_of(tmp_path / "image.png")
    assert caught.value.kind == "absent"
    with pytest.raises(BadImage, match="Is a directory") as caught:
        content_of(tmp_path)
    assert caught.value.kind == "unreadable"
    with pytest.raises(BadImage):
        content_of(Stored(FileNotFoundError(2, "No such file")))


def test_an_object_store_that_is_away_says_nothing_of_an_image() -> None:
    with pytest.raises(UserError, match=r"gs://bucket/image.png cannot be read .* connection lost"):
        content_of(Stored(ConnectionError("connection lost")))
