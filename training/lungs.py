"""Finds the lungs with a compact U-Net that each run trains.

Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597; with a quarter of the filters, one convolution per level on the way up, and small images.
"""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from core.artifacts import SEGMENTER
from core.errors import UserError
from core.progress import Progress
from training.preprocess import decode_grey
from training.untuned import untuned

# Of the network's input, in pixels.
SIDE = 64
# Lungs count as not found if they cover a smaller share of an image, or a larger one: without lungs, a view
# of the lungs alone shows the whole image.
LEAST, _MOST = 0.03, 0.95
_FILTERS = (16, 32, 64, 96)
_EPSILON = 1.0

# Training ends when the network is about as good as human readers agree (van Ginneken, Stegmann, Loog:
# "Segmentation of anatomical structures in chest radiographs", Medical Image Analysis 2006: a Dice
# coefficient of 0.97 between observers, at a finer resolution), or when it no longer improves.
_GOOD_ENOUGH, _LEAST_GAIN = 0.95, 0.002
_BATCH, _STEPS_BETWEEN_LOOKS, _MOST_LOOKS, _PATIENCE = 8, 20, 36, 6
# By which the learning rate is multiplied after half of the patience.
_SLOWER = 0.3


def build(seed: int) -> keras.Model:
    """Returns the untrained network: from float32 [N, SIDE, SIDE, 1] in 0..255 to the same in 0..1."""
    keras.utils.set_random_seed(seed + 1)
    pixels = keras.Input((SIDE, SIDE, 1))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    skipped = []
    for filters in _FILTERS[:-1]:
        x = _convolved(x, filters, 2)
        skipped.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = _convolved(x, _FILTERS[-1], 2)
    for filters, skip in zip(reversed(_FILTERS[:-1]), reversed(skipped), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D(2, interpolation="bilinear")(x), skip])
        x = _convolved(x, filters, 1)
    return keras.Model(pixels, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x))


def _convolved(x: keras.KerasTensor, filters: int, times: int) -> keras.KerasTensor:
    for _ in range(times):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    return x


def train(
    model: keras.Model,
    learnt: tuple[np.ndarray, np.ndarray],
    watched: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> list[float]:
    """Trains the network on images with random shifts, rotations, scales and exposures.

    Training ends once the validation Dice coefficient is good enough or no longer rises, and keeps the best
    weights.

    Args:
      model: see `build`.
      learnt: images, float32 [N, SIDE, SIDE, 1] in 0..255, and their masks, of the same shape, 0 or 1.
      watched: validation images and masks, of the same form.
      seed: for the order and the augmentation.

    Returns:
      the validation Dice coefficient after every 20 steps.

    Raises:
      UserError: the loss is no longer a number.
    """
    _compiled(model)
    batches = untuned(
        tf.data.Dataset.from_tensor_slices(learnt)
        .shuffle(len(learnt[0]), seed=seed)
        .repeat()
        .batch(_BATCH)
        .enumerate()
        .map(
            lambda step, pair: changed(pair[0], pair[1], tf.stack([tf.cast(seed, tf.int64), step])),
            tf.data.AUTOTUNE,
        )
        .prefetch(2)
    )
    dices: list[float] = []
    best = model.get_weights()
    without_gain = 0
    most = _MOST_LOOKS * _STEPS_BETWEEN_LOOKS

    def so_far() -> str:
        return f"Dice {dices[-1]:.3f} on validation masks" if dices else ""

    with Progress("steps at most", most, figures=so_far) as progress:
        for batch, (pixels, mask) in enumerate(batches.take(most), 1):
            loss = float(model.train_on_batch(pixels, mask))
            if not np.isfinite(loss):
                raise UserError(
                    f"lungs: the segmenter's loss is {loss} at step {batch}. Check that the masks in "
                    "the dataset's annotations belong to its images, or try another --seed."
                )
            progress.advance()
            if batch % _STEPS_BETWEEN_LOOKS:
                continue
            highest = max(dices, default=0.0)
            dices.append(float(dice(tf.constant(watched[1]), find(model, watched[0]))))
            if dices[-1] > highest:
                best = model.get_weights()
            without_gain = 0 if dices[-1] > highest + _LEAST_GAIN else without_gain + 1
            if without_gain == _PATIENCE // 2:
                model.optimizer.learning_rate = model.optimizer.learning_rate * _SLOWER
            if dices[-1] >= _GOOD_ENOUGH or without_gain == _PATIENCE:
                break
    model.set_weights(best)
    return dices


def _compiled(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.Adam(2e-3), _loss)
    # Otherwise the first step would make its variables, and be traced a second time.
    model.optimizer.build(model.trainable_variables)
    return model


def changed(images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments images and masks, as if they were of other patients and machines.

    Args:
      images: float32 [N, SIDE, SIDE, 1] in 0..255.
      masks: of the same shape, 0 or 1.
      seed: int64 [2]; the same seed gives the same images.

    Returns:
      both in the same shape: flipped at random, rotated by up to 14 degrees, scaled by 0.8 to 1.25, shifted
      by up to 8 % of the side; images with random gamma, contrast, brightness and noise.
    """
    count = tf.shape(images)[0]
    seeds = iter(tf.unstack(tf.random.split(seed, 10)))

    def drawn(low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform([count], next(seeds), low, high)

    flip = tf.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    angle, wide, high = drawn(-0.25, 0.25), drawn(0.8, 1.25), drawn(0.8, 1.25)
    right, down = drawn(-0.08, 0.08) * SIDE, drawn(-0.08, 0.08) * SIDE
    middle, none = (SIDE - 1) / 2, tf.zeros_like(angle)
    across, slant = flip * wide * tf.cos(angle), -wide * tf.sin(angle)
    rise, along = flip * high * tf.sin(angle), high * tf.cos(angle)
    matrix = [
        across, slant, middle * (1 - across - slant) + right,
        rise, along, middle * (1 - rise - along) + down,
        none, none,
    ]  # fmt: skip
    both = keras.ops.image.affine_transform(
        tf.concat([images, masks], axis=-1),
        tf.stack(matrix, axis=1),
        interpolation="bilinear",
        fill_mode="constant",
    )
    pixels, mask = tf.split(both, 2, axis=-1)
    gamma, gain, shift = (
        drawn(low, high)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        for low, high in ((0.6, 1.6), (0.7, 1.3), (-30.0, 30.0))
    )
    pixels = 255 * tf.clip_by_value(pixels / 255, 0.0, 1.0) ** gamma * gain + shift
    pixels += 6 * tf.random.stateless_normal(tf.shape(pixels), next(seeds))
    return tf.clip_by_value(pixels, 0.0, 255.0), tf.cast(mask > 0.5, tf.float32)


def _loss(truth: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    # Overlap, and a loss per pixel for pixels far from any border.
    return 1 - dice(truth, seen) + tf.reduce_mean(keras.losses.binary_crossentropy(truth, seen))


def dice(truth: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Returns the Dice coefficient of two batches of masks in 0..1, a scalar, the mean over images."""
    axes = list(range(1, len(truth.shape)))
    common = tf.reduce_sum(truth * seen, axes)
    both = tf.reduce_sum(truth, axes) + tf.reduce_sum(seen, axes)
    return tf.reduce_mean((2 * common + _EPSILON) / (both + _EPSILON))


def shown(content: bytes, side: int = SIDE) -> np.ndarray:
    """Returns an image file as the network sees it: float32 [side, side, 1] in 0..255.

    Args:
      content: a JPEG or PNG.
      side: in pixels.
    """
    image = tf.image.resize(decode_grey(tf.constant(content)), (side, side), antialias=True)
    return np.asarray(tf.clip_by_value(image, 0.0, 255.0))


def find(model: keras.Model, pixels: tf.Tensor, size: tuple[int, int] | None = None) -> tf.Tensor:
    """Finds the lungs in images of any size.

    Args:
      model: see `build`.
      pixels: float32 [N, height, width, 1] in 0..255.
      size: (height, width) of the result; None for that of `pixels`.

    Returns:
      float32 [N, height, width, 1], 1 in the lungs and 0 elsewhere.
    """
    seen = model(tf.image.resize(pixels, (SIDE, SIDE), antialias=True), training=False)
    return tf.cast(tf.image.resize(seen, size or tf.shape(pixels)[1:3]) > 0.5, tf.float32)


def are_found(share: Any) -> Any:
    """Returns whether lungs that cover a share of an image, in 0..1, are lungs; for arrays by element."""
    return (share >= LEAST) & (share <= _MOST)


def digest(model: keras.Model) -> str:
    """Returns a digest of the network's weights, as 16 hexadecimal digits."""
    of_weights = hashlib.sha256()
    for weight in model.get_weights():
        of_weights.update(np.ascontiguousarray(weight).tobytes())
    return of_weights.hexdigest()[:16]


def load(directory: Path) -> keras.Model:
    """Loads the network that the step `find_lungs` wrote to a directory."""
    return keras.models.load_model(directory / SEGMENTER, compile=False)
