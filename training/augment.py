"""Varies radiographs as if other machines had taken them, so that the acquisition tells less."""

import keras
import tensorflow as tf

_TURN = 0.12  # radians: 7 degrees
_GAMMA, _GAIN, _SHIFT, _NOISE = 0.35, 0.2, 20.0, 6.0
_COARSEST = 2


def augmented(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns images with other gamma, contrast, brightness, noise, sharpness, resolution and rotation.

    Args:
      pixels: float32 [N, height, width, 1] in 0..255.
      seed: int [2]; the same one gives the same images.

    Returns:
      float32 of the same shape, in 0..255. Zeros (blanked, or beyond the edge) stay 0.
    """
    count, height, width = tf.shape(pixels)[0], pixels.shape[1], pixels.shape[2]
    seeds = iter(tf.unstack(tf.random.split(seed, 8)))

    def drawn(low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform([count, 1, 1, 1], next(seeds), low, high)

    blank = pixels == 0
    # Blend each image with a blurred one and one at half the resolution, in random shares.
    blurred = tf.nn.avg_pool2d(pixels, 3, 1, "SAME")
    coarse = tf.image.resize(
        tf.image.resize(pixels, (height // _COARSEST, width // _COARSEST), antialias=True),
        (height, width),
    )
    share = drawn(0.0, 1.0)
    pixels += share * drawn(0.0, 1.0) * (blurred - pixels)
    pixels += (1 - share) * drawn(0.0, 1.0) * (coarse - pixels)
    exposed = 255 * tf.clip_by_value(pixels / 255, 0.0, 1.0) ** tf.exp(drawn(-_GAMMA, _GAMMA))
    exposed = exposed * drawn(1 - _GAIN, 1 + _GAIN) + drawn(-_SHIFT, _SHIFT)
    exposed += _NOISE * tf.random.stateless_normal(tf.shape(pixels), next(seeds))
    exposed = tf.where(blank, 0.0, tf.clip_by_value(exposed, 0.0, 255.0))
    angle = tf.random.stateless_uniform([count], next(seeds), -_TURN, _TURN)
    return turned(exposed, angle)


def turned(pixels: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Rotates each image about its centre; pixels from beyond the edge are 0.

    Args:
      pixels: float32 [N, height, width, 1].
      angle: float32 [N], in radians.
    """
    y, x = (pixels.shape[1] - 1) / 2, (pixels.shape[2] - 1) / 2
    sine, cosine, none = tf.sin(angle), tf.cos(angle), tf.zeros_like(angle)
    matrix = [
        cosine, -sine, x - cosine * x + sine * y,
        sine, cosine, y - sine * x - cosine * y,
        none, none,
    ]  # fmt: skip
    return keras.ops.image.affine_transform(
        pixels, tf.stack(matrix, axis=1), interpolation="bilinear", fill_mode="constant"
    )
