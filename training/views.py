"""What of an image a recipe's network is shown: all of it, or its lungs alone."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from core.errors import UserError
from training import lungs
from training.preprocess import decode_grey, fitted, shrink, to_input
from training.recipes import Recipe

# Of the segmenter's side, around what it finds: what lies along the pleura is seen, too.
_MARGIN = 2
_LEVELS = 255


@dataclass(frozen=True)
class Change:
    """What is done to each image at last, before a network sees it.

    Attributes:
      name: stands for it where results are kept.
      of: returns of float32 [height, width, 1] in 0..255 the same.
    """

    name: str
    of: Callable[[tf.Tensor], tf.Tensor]


def to_pixels(
    content: tf.Tensor, recipe: Recipe, segmenter: keras.Model | None, change: Change | None = None
) -> tf.Tensor:
    """Decodes one image file and returns what the recipe's network is shown of it.

    Args:
      content: scalar string, as for `preprocess.decode_grey`.
      recipe: whose `view` and `input_size` say what.
      segmenter: finds the lungs (see `training.lungs`); not needed for the view `full`.
      change: what is done at last; or None.

    Returns:
      float32 [height, width, 1] in 0..255.

    Raises:
      UserError: the view needs a segmenter and there is none.
    """
    if recipe.view == "full":
        pixels = to_input(content, recipe.input_size)
    elif segmenter is None:
        raise UserError(
            f"{recipe.name}: it is shown the lungs alone, and nothing is given to find them"
        )
    else:
        pixels = lungs_alone(shrink(decode_grey(content)), recipe.input_size, segmenter)
    return change.of(pixels) if change else pixels


def lungs_alone(image: tf.Tensor, size: tuple[int, int], segmenter: keras.Model) -> tf.Tensor:
    """Crops an image to its lungs, blanks the rest and equalises what is left.

    Args:
      image: float32 [height, width, 1] in 0..255.
      size: (height, width) in pixels.
      segmenter: see `training.lungs`.

    Returns:
      float32 [*size, 1]: in the lungs and a margin around them 1..255, each brightness as frequent as
      any other (histogram equalisation), so that exposure tells nothing; 0 elsewhere. Where no lungs
      are found it is all of the image that is equalised.
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
    """Returns from where to where something is, of `side` positions, in pixels of a longer side."""
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
    # To the middle of each brightness's share, so that an even image becomes grey, not white.
    middle = (below - tf.cast(counts[: _LEVELS + 1], tf.float32) / 2) / tf.maximum(below[-1], 1.0)
    spread = 1 + (_LEVELS - 1) * tf.gather(middle, values)
    return tf.where(inside, spread, 0.0)
