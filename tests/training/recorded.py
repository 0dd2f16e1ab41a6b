"""What the code that `training.kept.CODE` stands for makes of fixed input.

python -m tests.training.recorded      records it for a new CODE, once
"""

import dataclasses
import io
import json
import zlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from training import architectures, augment, data, kept, loop, lungs, surroundings
from training.recipes import recipe_named
from training.views import to_pixels


def file_of(code: int) -> Path:
    return Path(__file__).parent / "outputs" / f"code-{code}.json"


def computed() -> dict[str, list[float]]:
    """Returns some numbers of each output: enough to tell that it has changed."""
    size = (48, 40)
    of = {
        name: dataclasses.replace(recipe_named(name), input_size=size)
        for name in ("cnn-dubey", "cnn-dubey+lungs", "coronet-4class")
    }
    image = tf.constant(_png(_picture(160, 120)))
    large = tf.constant(_png(_picture(1400, 900)))
    whole = to_pixels(image, of["cnn-dubey"], None)
    batch = tf.stack([whole, to_pixels(large, of["cnn-dubey"], None)])
    square = tf.image.resize(batch, (lungs.SIDE, lungs.SIDE))
    masks = tf.cast(square > 128, tf.float32)
    seed = tf.constant([3, 14], tf.int64)
    found = _ellipses(batch, training=False)
    theirs = tf.concat([found, tf.roll(found, 3, 2)], axis=0)
    two, four = (
        tf.constant([[0.3], [0.9]]),
        tf.constant([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]),
    )
    truth = tf.constant([0, 1])
    manifest = {
        "splits": {
            "train": {
                "labels": {"covid": 30, "normal": 70},
                "sources": {"a": {"covid": 30, "normal": 10}, "b": {"normal": 60}},
            }
        }
    }
    weights = {
        balanced: data.image_weights(
            manifest, dataclasses.replace(of["cnn-dubey"], balanced=balanced), ["train"]
        )
        for balanced in (False, True)
    }
    moved, moved_masks = lungs.changed(square, masks, seed)
    return {
        "whole image": _some(whole),
        "large image": _some(batch[1]),
        "lungs alone": _some(to_pixels(image, of["cnn-dubey+lungs"], _ellipses)),
        "augmented": _some(augment.augmented(batch, seed)),
        "mixed": _some(surroundings.mixed(batch, theirs, truth, seed)),
        "mixed outlines": _some(surroundings.mixed(batch * theirs, None, truth, seed)),
        "lungs' images": _some(moved),
        "lungs' masks": _some(moved_masks),
        "loss of one output": [float(loop.loss_of(of["cnn-dubey"])(truth, two))],
        "loss of four": [float(loop.loss_of(of["coronet-4class"])(truth, four))],
        "networks": [
            *(_described(architectures.build(recipe, "none", 0)) for recipe in of.values()),
            _described(lungs.build(0)),
        ],
        "segmenter's loss": [float(lungs._loss(masks, square / 255))],
        "segmenter's training": [
            lungs._BATCH,
            lungs._GOOD_ENOUGH,
            lungs._LEAST_GAIN,
            lungs._MOST_LOOKS,
            lungs._PATIENCE,
            lungs._STEPS_BETWEEN_LOOKS,
        ],
        "weights": [value for one in weights.values() for row in one.values() for value in row],
    }


def _described(model: keras.Model) -> float:
    """Returns a number that follows from a network's layers and their settings, in their order."""
    layers = [
        (
            type(layer).__name__,
            sorted(
                (key, value)
                for key, value in layer.get_config().items()
                if isinstance(value, int | float | str)
                and key not in ("name", "trainable", "dtype")
            ),
        )
        for layer in model._flatten_layers()
    ]
    return float(zlib.crc32(json.dumps(layers).encode()))


def _some(pixels: tf.Tensor) -> list[float]:
    """Returns means over a coarse grid of each image, and its spread."""
    batch = tf.reshape(pixels, (-1, *pixels.shape[-3:]))
    coarse = tf.image.resize(batch, (4, 4), method="area")
    spread = tf.math.reduce_std(batch, (1, 2, 3))
    return [round(float(value), 3) for value in tf.concat([tf.reshape(coarse, -1), spread], 0)]


def _ellipses(pixels: tf.Tensor, training: bool) -> tf.Tensor:
    """Plays a segmenter that finds two lungs, wherever it looks."""
    y, x = np.mgrid[-1 : 1 : 1j * pixels.shape[1], -1 : 1 : 1j * pixels.shape[2]]
    inside = ((np.abs(x) - 0.45) / 0.3) ** 2 + (y / 0.7) ** 2 < 1
    return tf.constant(inside[np.newaxis, ..., np.newaxis], tf.float32)


def _picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (127 + 80 * np.sin(7 * x + 3 * y) + 47 * np.cos(11 * y * x)).round().astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    with file_of(kept.CODE).open("x", encoding="utf-8") as file:
        json.dump(computed(), file, indent=1)
