import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from training.augment import augmented, turned

PICTURES = arrays.arrays(
    np.float32, (3, 24, 20, 1), elements=st.floats(0, 255, width=32), fill=st.just(100.0)
)


@settings(max_examples=30, deadline=None)
@given(PICTURES, st.integers(0, 2**31 - 1))
def test_pixels_stay_in_range_and_the_same_seed_gives_the_same(
    pixels: np.ndarray, seed: int
) -> None:
    once, again = (augmented(tf.constant(pixels), tf.constant([seed, 1])) for _ in range(2))
    assert once.shape == pixels.shape
    assert float(tf.reduce_min(once)) >= 0
    assert float(tf.reduce_max(once)) <= 255.01
    assert np.array_equal(once, again)


def test_each_image_and_each_step_is_changed_otherwise() -> None:
    pixels = tf.fill((2, 24, 24, 1), 120.0)
    one, other = (augmented(pixels, tf.constant([0, step])).numpy() for step in (1, 2))
    assert np.abs(one[0] - one[1]).mean() > 1
    assert np.abs(one - other).mean() > 1


def test_what_is_blank_stays_blank() -> None:
    pixels = np.zeros((1, 40, 40, 1), np.float32)
    pixels[:, 12:28, 12:28] = 150
    seen = augmented(tf.constant(pixels), tf.constant([0, 0])).numpy()
    assert (seen[:, :6] == 0).all()
    assert seen[:, 18:22, 18:22].min() > 0


def test_a_quarter_turn_is_against_the_clock() -> None:
    pixels = np.zeros((1, 5, 5, 1), np.float32)
    pixels[0, 0, 2] = 200
    seen = turned(tf.constant(pixels), tf.constant([np.pi / 2])).numpy()[0, ..., 0]
    assert np.unravel_index(seen.argmax(), seen.shape) == (2, 0)
    assert seen.max() > 190
