"""Puts the lungs of one radiograph into the surroundings of another.

Xiao, Engstrom, Ilyas, Madry: "Noise or Signal: The Role of Image Backgrounds in Object Recognition",
arXiv:2006.09994, with lungs in the place of objects.
"""

import keras
import tensorflow as tf

from training import lungs

# Of an image's shorter side: the margin around lungs.
_MARGIN = 1 / 40
# Between the brightness of two images.
_MOST_GAIN = 3.0
_SMALLEST = 1e-3


def swapped(
    pixels: tf.Tensor, masks: tf.Tensor, others: tf.Tensor, their_masks: tf.Tensor
) -> tf.Tensor:
    """Returns the lungs of images in the surroundings of others.

    The lungs are moved and scaled, so that their bounding box is that of the other image's lungs, and exposed
    as the other image is: what is not lungs gets the same mean brightness. Where either image has lungs, and
    in a margin around them, the result shows the first image. So nothing of the other's lungs is left.

    Args:
      pixels: images that give the lungs, float32 [N, height, width, 1] in 0..255.
      masks: where their lungs are, float32 of the same shape, 0 or 1; see `lungs.find`.
      others: images that give the surroundings, of the same shape.
      their_masks: where the lungs of those are.

    Returns:
      float32 of the same shape, in 0..255. If an image has no lungs, the result means nothing.
    """
    moved, shares = _aligned(pixels, masks, their_masks)
    inside = swollen(tf.maximum(tf.round(shares), their_masks))
    # Brightness is part of the surroundings.
    gain = tf.math.divide_no_nan(_mean(others, 1 - their_masks), _mean(pixels, 1 - masks))
    exposed = moved * tf.clip_by_value(gain, 1 / _MOST_GAIN, _MOST_GAIN)
    # A soft edge, narrower than the margin.
    edge = 2 * (_margin(pixels) // 2) + 1
    share = _around(inside, edge)
    return tf.clip_by_value(share * exposed + (1 - share) * others, 0.0, 255.0)


def retextured(pixels: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the texture of lungs in the outline of others, for images that show the lungs alone.

    Args:
      pixels: images that give the texture, float32 [N, height, width, 1]: 1..255 in the lungs, 0 elsewhere.
      others: images that give the outline, of the same form.

    Returns:
      float32 of the same form. Where the outline is wider than the lungs, the texture is continued with the
      mean of what is near.
    """
    masks, outline = (tf.cast(shown > 0, tf.float32) for shown in (pixels, others))
    moved, shares = _aligned(pixels, masks, outline)
    moved_masks = tf.round(shares)
    moved = tf.math.divide_no_nan(moved, shares)  # at an edge, without the 0 beside it
    side = 2 * (min(pixels.shape[1:3]) // 8) + 1
    near = _around(moved_masks, side)
    mean = _mean(moved, moved_masks)
    continued = tf.where(
        near > _SMALLEST,
        tf.math.divide_no_nan(_around(moved * moved_masks, side), near),
        mean,
    )
    texture = tf.where(moved_masks > 0, moved, continued)
    return tf.where(outline > 0, tf.clip_by_value(texture, 1.0, 255.0), 0.0)


def swollen(masks: tf.Tensor) -> tf.Tensor:
    """Returns masks enlarged on all sides by a 40th of the shorter side.

    Args:
      masks: float32 [N, height, width, 1], 0 or 1.
    """
    side = 2 * _margin(masks) + 1
    half_a_pixel = 0.5 / side**2
    return tf.cast(_around(masks, side) > half_a_pixel, tf.float32)


def mixed(
    pixels: tf.Tensor, masks: tf.Tensor | None, classes: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Returns a batch in which the surroundings of images tell nothing about the class of their lungs.

    For each image one of the classes in the batch is drawn, all with the same chance. If it is its own, the
    image stays as it is; otherwise it gets the surroundings of a random image of that class. So of two
    classes half of the images change, of four three quarters. If half changed whatever the number of classes,
    or to an image of any class, surroundings would still tell the class more often than by chance.

    Args:
      pixels: float32 [N, height, width, 1] in 0..255, in random order.
      masks: where the lungs are, of the same shape; None for images that show the lungs alone: these get
        the outline of another image's lungs.
      classes: int [N].
      seed: int [2]; the same seed gives the same images.

    Returns:
      float32 of the same shape. An image without lungs gives and gets no surroundings.
    """
    seeds = tf.random.split(seed, 2)
    count = tf.shape(pixels)[0]
    shown = tf.cast(pixels > 0, tf.float32) if masks is None else masks
    has_lungs = lungs.are_found(tf.reduce_mean(shown, (1, 2, 3)))
    same = classes[:, tf.newaxis] == classes[tf.newaxis]
    size = tf.reduce_sum(tf.cast(same & has_lungs[tf.newaxis], tf.float32), axis=1)
    possible = ~same & has_lungs[tf.newaxis]
    # With its class's size as the exponent, a draw is the highest as often in each class.
    draws = tf.random.stateless_uniform([count, count], seeds[0]) ** size
    partner = tf.argmax(tf.where(possible, draws, -1.0), axis=1)
    of_own = tf.cast(has_lungs, tf.float32) / tf.maximum(size, 1.0)
    classes_there = tf.maximum(tf.round(tf.reduce_sum(of_own)), 1.0)
    chosen = has_lungs & tf.reduce_any(possible, axis=1)
    chosen &= tf.random.stateless_uniform([count], seeds[1]) < 1 - 1 / classes_there
    others = tf.gather(pixels, partner)
    if masks is None:
        made = retextured(pixels, others)
    else:
        made = swapped(pixels, masks, others, tf.gather(masks, partner))
    return tf.where(chosen[:, tf.newaxis, tf.newaxis, tf.newaxis], made, pixels)


def _margin(images: tf.Tensor) -> int:
    height, width = images.shape[1:3]
    return max(1, round(_MARGIN * int(min(height, width))))


def _around(pixels: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the mean of the square around each pixel, as far as it is in the image."""
    # As products of matrices: pooling windows of 57 x 57 pixels takes hundreds of times as long.
    over_rows, over_columns = (_means(length, side) for length in pixels.shape[1:3])
    return (over_rows @ pixels[..., 0] @ tf.transpose(over_columns))[..., tf.newaxis]


def _means(length: int, side: int) -> tf.Tensor:
    """Returns the matrix that replaces each of `length` values by the mean of the `side` values around it."""
    near = tf.linalg.band_part(tf.ones((length, length)), side // 2, side // 2)
    return near / tf.reduce_sum(near, axis=1, keepdims=True)


def _aligned(
    pixels: tf.Tensor, masks: tf.Tensor, their_masks: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves and scales images and masks, so that the box of each mask becomes that of the other mask.

    Returns:
      the images, and of each pixel the share, in 0..1, that is in the mask.
    """
    (top, left, height, width), (their_top, their_left, their_height, their_width) = (
        _boxes(masks),
        _boxes(their_masks),
    )
    down, across, none = height / their_height, width / their_width, tf.zeros_like(top)
    matrix = [
        across, none, left - their_left * across + (across - 1) / 2,
        none, down, top - their_top * down + (down - 1) / 2,
        none, none,
    ]  # fmt: skip
    moved = keras.ops.image.affine_transform(
        tf.concat([pixels, masks], axis=-1),
        tf.stack(matrix, axis=1),
        interpolation="bilinear",
        fill_mode="nearest",
    )
    moved, shares = tf.split(tf.ensure_shape(moved, (*pixels.shape[:3], 2)), 2, axis=-1)
    return moved, shares


def _boxes(masks: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns top, left, height and width of each mask's bounding box, float32 [N] in pixels."""
    firsts, lengths = [], []
    for axis in (2, 1):
        there = tf.reduce_max(masks[..., 0], axis=axis) > 0
        place = tf.range(there.shape[1], dtype=tf.float32)[tf.newaxis]
        first = tf.reduce_min(tf.where(there, place, tf.cast(there.shape[1], tf.float32)), axis=1)
        last = tf.reduce_max(tf.where(there, place, -1.0), axis=1)
        firsts.append(first)
        lengths.append(tf.maximum(last - first + 1, 1.0))
    return (*firsts, *lengths)


def _mean(pixels: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each image where a mask is 1, float32 [N, 1, 1, 1]."""
    axes = (1, 2, 3)
    total = tf.reduce_sum(pixels * where, axes, keepdims=True)
    return tf.math.divide_no_nan(total, tf.reduce_sum(where, axes, keepdims=True))
