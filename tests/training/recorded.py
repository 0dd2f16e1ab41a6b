"""What the code that `training.kept.CODE` stands for makes of fixed input.

python -m tests.training.recorded      records it for a new CODE, once
"""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from PIL import Image

from core import divisions
from training import architectures, augment, data, kept, loop, lungs, surroundings
from training.recipes import recipe_named
from training.views import to_pixels

SIZE = (48, 40)
RECIPES = ("cnn-dubey", "cnn-dubey+lungs")
# Of each kind: trained whole, quickly, with averages to shorten, and with a frozen base.
COMPILED = ("cnn-dubey", "cnn-dubey+quick", "coronet-4class+quick", "soares-vgg16")


def file_of(code: int) -> Path:
    return Path(__file__).parent / "outputs" / f"code-{code}.json"


def computed() -> dict[str, Any]:
    """Returns `pixels` in 0..255, to compare roughly; `numbers`, closely; and `settings`, which are equal."""
    return {"pixels": pixels(), "numbers": numbers(), "settings": settings()}


def pixels() -> dict[str, list[float]]:
    """Returns what networks see: enough of each output to tell that it has changed."""
    small = {name: dataclasses.replace(recipe_named(name), input_size=SIZE) for name in RECIPES}
    image = tf.constant(_png(_picture(160, 120)))
    large = tf.constant(_png(_picture(1400, 900)))
    whole = to_pixels(image, small["cnn-dubey"], None)
    batch = tf.stack([whole, to_pixels(large, small["cnn-dubey"], None)])
    square = tf.image.resize(batch, (lungs.SIDE, lungs.SIDE))
    masks = _ellipses(square, training=False)
    masks = tf.concat([masks, tf.roll(masks, 9, 2)], axis=0)
    seed = tf.constant([3, 14], tf.int64)
    found = _ellipses(batch, training=False)
    theirs = tf.concat([found, tf.roll(found, 3, 2)], axis=0)
    truth = tf.constant([0, 1])
    moved, moved_masks = lungs.changed(square, masks, seed)
    return {
        "whole image": _some(whole),
        "large image": _some(batch[1]),
        "lungs alone": _some(to_pixels(image, small["cnn-dubey+lungs"], _ellipses)),
        "augmented": _some(augment.augmented(batch, seed)),
        "mixed": _some(surroundings.mixed(batch, theirs, truth, seed)),
        "mixed outlines": _some(surroundings.mixed(batch * theirs, None, truth, seed)),
        "lungs' images": _some(moved),
        # The tolerance is then three pixels of a thousand, which rounding may move over an edge.
        "lungs' masks": _some(16 * moved_masks),
    }


def numbers() -> dict[str, list[float]]:
    """Returns losses, weights of images, and what the training of the segmenter depends on."""
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
    dubey = recipe_named("cnn-dubey")
    weights = [
        data.image_weights(manifest, dataclasses.replace(dubey, balanced=balanced), ["train"])
        for balanced in (False, True)
    ]
    square = tf.constant(_picture(lungs.SIDE, lungs.SIDE)[np.newaxis, ..., np.newaxis], tf.float32)
    masks = _ellipses(square, training=False)
    return {
        "loss of one output": [float(loop.loss_of(dubey)(truth, two))],
        "loss of four": [float(loop.loss_of(recipe_named("coronet-4class"))(truth, four))],
        "segmenter's loss": [float(lungs._loss(masks, square / 255))],
        "segmenter's training": [
            lungs._BATCH,
            lungs._GOOD_ENOUGH,
            lungs._LEAST_GAIN,
            lungs._MOST_LOOKS,
            lungs._PATIENCE,
            lungs._SLOWER,
            lungs._STEPS_BETWEEN_LOOKS,
        ],
        "weights": [value for one in weights for row in one.values() for value in row],
        "batch and rate": [
            number for replicas in (1, 3) for number in loop.scaled(dubey, replicas)
        ],
    }


def settings() -> dict[str, Any]:
    """Returns digests of the networks, compiled as for a training, and their optimizers' settings."""
    told = {"segmenter": _told(lungs._compiled(lungs.build(0)))}
    for name in COMPILED:
        recipe = recipe_named(name)
        batch, rate = loop.scaled(recipe, 1)
        plan = loop._Plan(
            recipe=dataclasses.replace(recipe, input_size=SIZE),
            manifest={}, parts=divisions.division("70/10/20"), counts={"covid": 100}, held_out=10,
            replicas=1, batch=batch, learning_rate=rate, policy="float32", seed=0,
        )  # fmt: skip
        model = architectures.build(plan.recipe, "none", 0)
        compiled = loop._compiled(model, plan)
        told[name] = _told(model, compiled)
    return told


def _told(model: keras.Model, compiled: keras.Model | None = None) -> dict[str, Any]:
    return {
        "network": described(model),
        "optimizer": setting((compiled or model).optimizer.get_config()),
    }


def described(model: keras.Model) -> str:
    """Returns a digest of a network's layers in their order: settings, shapes of input, what is trained."""
    layers = [
        [
            type(layer).__name__,
            setting(layer.get_config()),
            [list(one.shape) for one in tree.flatten(layer.input)],
            [variable.trainable for variable in layer.variables],
        ]
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.Model)
    ]
    return hashlib.sha256(json.dumps(layers, sort_keys=True).encode()).hexdigest()[:16]


def setting(value: Any) -> Any:
    """Returns a setting of Keras as JSON, without names, which count up, and without seeds."""
    if isinstance(value, dict):
        return {
            key: setting(one)
            for key, one in value.items()
            if key not in ("name", "dtype", "seed", "trainable", "build_config")
        }
    if isinstance(value, list | tuple):
        return [setting(one) for one in value]
    return value if isinstance(value, int | float | str | None) else str(value)


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
