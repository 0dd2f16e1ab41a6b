import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.preprocess import MAX_SIDE, decode_grey, shrink, to_input


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_grey_8_bits_are_decoded_exactly(picture) -> None:
    grey = picture(31, 17)
    decoded = decode_grey(tf.constant(png(grey)))
    assert decoded.dtype == tf.float32
    assert np.array_equal(decoded[..., 0], grey)


def test_16_bits_keep_their_precision(picture) -> None:
    deep = picture(20, 20).astype(np.uint16) * 201
    decoded = decode_grey(tf.constant(png(deep)))[..., 0]
    assert np.allclose(decoded, deep / 257.0, atol=1e-4)


def test_alpha_is_ignored(picture) -> None:
    grey = picture(20, 30)
    transparent = np.dstack([grey, grey, grey, np.full_like(grey, 3)])
    assert np.abs(decode_grey(tf.constant(png(transparent)))[..., 0] - grey).max() <= 1


@pytest.mark.parametrize("content", [b"", b"neither", b"\x89PNG\r\n\x1a\n cut"])
def test_anything_else_is_an_error(content: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_grey(tf.constant(content))


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 1600), width=st.integers(1, 1600))
def test_shrinking_twice_is_shrinking_once(height: int, width: int) -> None:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 1))
    once = shrink(tf.constant(noise, tf.float32))
    assert max(once.shape) <= MAX_SIDE
    assert np.array_equal(shrink(once), once)
    assert np.array_equal(once, np.round(once)), "what an 8-bit PNG can hold"


def test_a_model_sees_the_same_of_an_image_and_of_its_record(picture) -> None:
    from components.data.write_shards import storable

    for height, width in ((1400, 1100), (300, 2000), (500, 400)):
        content = png(picture(height, width))
        seen = to_input(tf.constant(content), (150, 150))
        assert np.array_equal(seen, to_input(tf.constant(storable(content)), (150, 150)))


def test_the_input_has_the_size_and_range_asked_for(picture) -> None:
    pixels = to_input(tf.constant(png(picture(300, 77))), (64, 48))
    assert pixels.shape == (64, 48, 1)
    assert tf.reduce_min(pixels) >= 0
    assert tf.reduce_max(pixels) <= 255
