"""What a recipe's network sees of an image: all of it, or the lungs alone."""

import keras
import tensorflow as tf

from core.errors import UserError
from training import lungs
from training.preprocess import decode_grey, fitted, shrink, to_input
from training.recipes import Recipe

# Pixels at the segmenter's resolution, so that the pleura is visible too.
_MARGIN = 2
_LEVELS = 255


def to_pixels(content: tf.Tensor, recipe: Recipe, segmenter: keras.Model | None) -> tf.Tensor:
    """Decodes one image file and returns the pixels that the recipe's network sees.

    Args:
      content: scalar string, as for `preprocess.decode_grey`.
      recipe: its `view` and `input_size` determine the pixels.
      segmenter: finds the lungs (see `training.lungs`); not needed for the view `full`.

    Returns:
      float32 [height, width, 1] in 0..255.

    Raises:
      UserError: the view needs a segmenter, but there is none.
    """
    if recipe.view == "full":
        return to_input(content, recipe.input_size)
    if segmenter is None:
        raise UserError(
            f"{recipe.name}: it sees the lungs alone, but no segmenter is given to find them"
        )
    return lungs_alone(shrink(decode_grey(content)), recipe.input_size, segmenter)


def lungs_alone(image: tf.Tensor, size: tuple[int, int], segmenter: keras.Model) -> tf.Tensor:
    """Crops an image to its lungs, blanks everything else and equalises the histogram.

    Args:
      image: float32 [height, width, 1] in 0..255.
      size: (height, width) in pixels.
      segmenter: see `training.lungs`.

    Returns:
      float32 [*size, 1]: 1..255 in the lungs and a margin around them, with all brightnesses equally frequent
      (histogram equalisation), so that exposure tells nothing; 0 elsewhere. If no lungs are found, the whole
      image is equalised.
    """
    side = lungs.SIDE
    seen = segmenter(fitted(image, (side, side))[tf.newaxis], training=False) > 0.5
    seen = tf.cond(
        tf.reduce_mean(tf.cast(seen, tf.float32)) < lungs.LEAST,
        lambda: tf.ones_like(seen),
        lambda: seen,
    )
    mask = tf.nn.max_pool2d(tf.cast(seen, tf.float32), 2 * _MARGIN + 1, 1, "SAME")[0]
    top, bottom = _extent(tf.reduce_max(mask[..., 0], axis=1), tf.shape(image)[0])
    left, right = _extent(tf.reduce_max(mask[..., 0], axis=0), tf.shape(image)[1])
    inside = tf.image.resize(mask, tf.shape(image)[:2])[top:bottom, left:right] > 0.5
    pixels = fitted(image[top:bottom, left:right], size)
    inside = fitted(tf.cast(inside, tf.float32), size) > 0.5
    return tf.ensure_shape(_equalised(pixels, inside), (*size, 1))


def _extent(there: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first and last pixel of an object, from its positions at the segmenter's resolution."""
    positions = tf.where(there > 0)
    ratio = tf.cast(length, tf.float32) / lungs.SIDE
    first = tf.cast(tf.reduce_min(positions), tf.float32) * ratio
    last = tf.cast(tf.reduce_max(positions) + 1, tf.float32) * ratio
    first = tf.cast(tf.floor(first), tf.int32)
    return first, tf.maximum(tf.cast(tf.math.ceil(last), tf.int32), first + 1)


def _equalised(pixels: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    values = tf.cast(tf.round(pixels), tf.int32)
    counts = tf.math.bincount(tf.boolean_mask(values, inside), minlength=_LEVELS + 1)
    below = tf.cumsum(tf.cast(counts[: _LEVELS + 1], tf.float32))
    # Map to the middle of each brightness's share, so that a uniform image becomes grey, not white.
    middle = (below - tf.cast(counts[: _LEVELS + 1], tf.float32) / 2) / tf.maximum(below[-1], 1.0)
    spread = 1 + (_LEVELS - 1) * tf.gather(middle, values)
    return tf.where(inside, spread, 0.0)
