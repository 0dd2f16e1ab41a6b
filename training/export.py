"""The exported model: a SavedModel from the bytes of image files to probabilities of named classes."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.preprocess import to_input
from training.recipes import Recipe

SAVED_MODEL = "saved_model"
# Beside the SavedModel: where it comes from.
CARD = "model.json"

_PACKAGES = ("cxrflow", "tensorflow", "keras", "numpy")


def export(model: keras.Model, recipe: Recipe, directory: Path) -> None:
    """Writes a SavedModel that decodes, preprocesses and classifies image files by itself.

    Its signature `serving_default` takes `image_bytes`, string [N]: JPEG or PNG files, grey or in
    colour, 8 or 16 bits, with or without alpha. It returns `probabilities`, float32 [N, classes],
    each row summing to one, and `classes`, string [N, classes], their names.

    Args:
      model: as `architectures.build` makes it, in float32.
      directory: to be made.
    """
    names = tf.constant(recipe.classes)

    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(
            lambda content: to_input(content, recipe.input_size),
            image_bytes,
            fn_output_signature=tf.TensorSpec((*recipe.input_size, 1), tf.float32),
        )
        probabilities = model(pixels, training=False)
        if probabilities.shape[-1] == 1:
            probabilities = tf.concat([1.0 - probabilities, probabilities], axis=-1)
        return {
            "probabilities": probabilities,
            "classes": tf.tile(names[tf.newaxis], [tf.shape(image_bytes)[0], 1]),
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default", classify, [tf.TensorSpec([None], tf.string, "image_bytes")]
    )
    archive.write_out(str(directory), verbose=False)


def load(directory: Path) -> Any:
    """Returns the signature `serving_default` of an exported model; see `export`."""
    loaded = tf.saved_model.load(str(directory))
    signature = loaded.signatures["serving_default"]
    signature.model = loaded  # the signature alone does not keep the variables alive
    return signature


def versions() -> dict[str, str]:
    """Returns the releases that decide what a training computes, by package."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
