"""Turns the bytes of an image file into the pixels that a model sees. There is no other such code.

It uses TensorFlow operations alone, so that the same code is used for training and in the exported model.
"""

from core.images import for_tensorflow, to_png
from training.without_keras import tf

# The longest side in TFRecords. Larger images are first shrunk to it, both when records are written and when
# a model predicts, so that both see the same pixels.
MAX_SIDE = 1024


def decode_grey(content: tf.Tensor) -> tf.Tensor:
    """Decodes one image file.

    Args:
      content: scalar string: the bytes of a JPEG or PNG with 8 or 16 bits, grey or in colour, with or
        without alpha (which is ignored).

    Returns:
      float32 [height, width, 1] in 0..255; 16-bit values are scaled to that range without rounding.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are neither JPEG nor PNG.
    """

    def jpeg() -> tf.Tensor:
        # The accurate transform; the default may differ between builds of TensorFlow.
        pixels = tf.io.decode_jpeg(content, channels=1, dct_method="INTEGER_ACCURATE")
        return tf.cast(pixels, tf.float32)

    def png() -> tf.Tensor:
        pixels = tf.io.decode_png(content, channels=1, dtype=tf.uint16)
        return tf.cast(pixels, tf.float32) / 257.0

    return tf.cond(tf.io.is_jpeg(content), jpeg, png)


def decoded(content: bytes) -> tuple[bytes, tf.Tensor]:
    """Decodes an image file of any kind that `core.images` accepts, turned upright.

    Returns:
      the file as TensorFlow's decoders read it (the same bytes, or a PNG of the same picture), and its
      pixels; see `decode_grey`.

    Raises:
      BadImage: it cannot be decoded; see `core.images.opened`.
    """
    content = for_tensorflow(content)
    try:
        return content, decode_grey(tf.constant(content))
    except tf.errors.InvalidArgumentError:  # e.g. CMYK: Pillow reads it, TensorFlow does not
        content = to_png(content)
        return content, decode_grey(tf.constant(content))


def shrink(image: tf.Tensor) -> tf.Tensor:
    """Shrinks an image if its longer side exceeds `MAX_SIDE`, keeping the aspect ratio.

    Args:
      image: float32 [height, width, 1] in 0..255.

    Returns:
      float32 [height, width, 1]: whole numbers in 0..255 if it was shrunk (as in an 8-bit PNG), else
      `image` unchanged.
    """

    def smaller() -> tf.Tensor:
        size = (MAX_SIDE, MAX_SIDE)
        resized = tf.image.resize(image, size, preserve_aspect_ratio=True, antialias=True)
        return tf.round(tf.clip_by_value(resized, 0.0, 255.0))

    return tf.cond(tf.reduce_max(tf.shape(image)[:2]) > MAX_SIDE, smaller, lambda: image)


def to_input(content: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes one image file and resizes it to a model's input, ignoring the aspect ratio.

    Args:
      content: scalar string, as for `decode_grey`.
      size: (height, width) in pixels.

    Returns:
      float32 [height, width, 1] in 0..255. Only one channel, to save memory: the model's first layer
      repeats it.
    """
    return fitted(shrink(decode_grey(content)), size)


def fitted(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes an image, ignoring the aspect ratio.

    Args:
      image: float32 [height, width, 1] in 0..255.
      size: (height, width) in pixels.

    Returns:
      float32 [*size, 1] in 0..255.
    """
    resized = tf.image.resize(image, size, antialias=True)
    return tf.ensure_shape(tf.clip_by_value(resized, 0.0, 255.0), (*size, 1))
