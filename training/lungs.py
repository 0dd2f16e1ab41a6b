"""Where the lungs are: a compact U-Net of the project's own.

Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597; with a quarter of the filters, on small images.
"""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from training.preprocess import decode_grey

# What step `find_lungs` leaves: the network, and what is known of it.
MODEL, CARD = "lungs.keras", "lungs.json"
SIDE = 128
# A smaller share of an image than this is no lungs: they were not found.
LEAST = 0.03
_FILTERS = (16, 32, 64, 96)
_EPSILON = 1.0


def build(seed: int) -> keras.Model:
    """Returns the untrained network: from float32 [N, SIDE, SIDE, 1] in 0..255 to the same in 0..1."""
    keras.utils.set_random_seed(seed + 1)
    pixels = keras.Input((SIDE, SIDE, 1))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    skipped = []
    for filters in _FILTERS[:-1]:
        x = _twice(x, filters)
        skipped.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = _twice(x, _FILTERS[-1])
    for filters, skip in zip(reversed(_FILTERS[:-1]), reversed(skipped), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D(2, interpolation="bilinear")(x), skip])
        x = _twice(x, filters)
    return keras.Model(pixels, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x))


def _twice(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    return x


def train(
    model: keras.Model, images: np.ndarray, masks: np.ndarray, epochs: int, seed: int
) -> None:
    """Trains the network on images that are moved, turned, scaled and exposed otherwise each time.

    Args:
      model: see `build`.
      images: float32 [N, SIDE, SIDE, 1] in 0..255.
      masks: float32 [N, SIDE, SIDE, 1], 0 or 1.
      epochs: passes.
      seed: of the order and of the changes.
    """
    moved = keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomRotation(0.04, fill_mode="constant", seed=seed),
            layers.RandomZoom((-0.2, 0.25), (-0.2, 0.25), fill_mode="constant", seed=seed),
            layers.RandomTranslation(0.08, 0.08, fill_mode="constant", seed=seed),
        ]
    )
    lots = np.random.default_rng(seed)
    steps = -(-len(images) // 8)

    def batches() -> Any:
        for _ in range(epochs * steps):
            chosen = lots.integers(0, len(images), 8)
            pair = moved(
                np.concatenate([images[chosen], masks[chosen] * 255], axis=-1), training=True
            )
            pixels, mask = np.split(np.asarray(pair), 2, axis=-1)
            # Other scanners: gamma, contrast, brightness, noise.
            gamma, gain, shift = (
                lots.uniform(low, high, (8, 1, 1, 1))
                for low, high in ((0.6, 1.6), (0.7, 1.3), (-30, 30))
            )
            pixels = 255 * (pixels / 255).clip(0, 1) ** gamma * gain + shift
            pixels += lots.normal(0, 6, pixels.shape)
            yield pixels.clip(0, 255).astype(np.float32), (mask > 127).astype(np.float32)

    model.compile(keras.optimizers.Adam(2e-3), _loss)
    for step, (pixels, mask) in enumerate(batches()):
        if step == int(0.7 * epochs * steps):
            model.optimizer.learning_rate = 5e-4
        model.train_on_batch(pixels, mask)


def _loss(truth: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    # Overlap and, for what lies far from any border, each pixel.
    return 1 - dice(truth, seen) + tf.reduce_mean(keras.losses.binary_crossentropy(truth, seen))


def dice(truth: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Returns the Dice coefficient of two batches of masks in 0..1, a scalar, the mean over images."""
    axes = list(range(1, len(truth.shape)))
    common = tf.reduce_sum(truth * seen, axes)
    both = tf.reduce_sum(truth, axes) + tf.reduce_sum(seen, axes)
    return tf.reduce_mean((2 * common + _EPSILON) / (both + _EPSILON))


def shown(content: bytes) -> np.ndarray:
    """Returns float32 [SIDE, SIDE, 1] in 0..255: what the network is shown of an image file.

    Args:
      content: a JPEG or PNG.
    """
    image = tf.image.resize(decode_grey(tf.constant(content)), (SIDE, SIDE), antialias=True)
    return np.asarray(tf.clip_by_value(image, 0.0, 255.0))


def find(model: keras.Model, pixels: tf.Tensor) -> tf.Tensor:
    """Returns where the lungs are in images of any size.

    Args:
      model: see `build`.
      pixels: float32 [N, height, width, 1] in 0..255.

    Returns:
      float32 [N, height, width, 1], 1 in the lungs and 0 elsewhere.
    """
    seen = model(tf.image.resize(pixels, (SIDE, SIDE), antialias=True), training=False)
    return tf.cast(tf.image.resize(seen, tf.shape(pixels)[1:3]) > 0.5, tf.float32)


def digest(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits that follow from the network's weights."""
    found = hashlib.sha256()
    for weight in model.get_weights():
        found.update(np.ascontiguousarray(weight).tobytes())
    return found.hexdigest()[:16]


def load(directory: Path) -> keras.Model:
    """Returns the network that step `find_lungs` has left in a directory."""
    return keras.models.load_model(directory / MODEL, compile=False)
