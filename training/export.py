"""The exported model: a SavedModel from the bytes of image files to probabilities of named classes."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import tensorflow as tf

from training import gradcam
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

    Its signature `explain` takes the same `image_bytes`, and `positions`, int32 [N], in `classes`, or
    -1 for the most probable. It returns `heat_maps`, float32 [N, rows, columns] (see
    `training.gradcam`), `explained`, string [N], the classes' names, and what `serving_default` does.

    Args:
      model: as `architectures.build` makes it, in float32.
      directory: to be made.
    """
    names = tf.constant(recipe.classes)

    heat_maps = gradcam.explainer(model, recipe)

    def decoded(image_bytes: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda content: to_input(content, recipe.input_size),
            image_bytes,
            fn_output_signature=tf.TensorSpec((*recipe.input_size, 1), tf.float32),
        )

    def classified(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(pixels, training=False)
        if probabilities.shape[-1] == 1:
            probabilities = tf.concat([1.0 - probabilities, probabilities], axis=-1)
        return {
            "probabilities": probabilities,
            "classes": tf.tile(names[tf.newaxis], [tf.shape(pixels)[0], 1]),
        }

    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return classified(decoded(image_bytes))

    def explain(image_bytes: tf.Tensor, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = decoded(image_bytes)
        answer = classified(pixels)
        probable = tf.argmax(answer["probabilities"], axis=-1, output_type=tf.int32)
        positions = tf.where(positions < 0, probable, positions)
        return {
            **answer,
            "heat_maps": heat_maps(pixels, positions),
            "explained": tf.gather(names, positions),
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default", classify, [tf.TensorSpec([None], tf.string, "image_bytes")]
    )
    archive.add_endpoint(
        "explain",
        explain,
        [
            tf.TensorSpec([None], tf.string, "image_bytes"),
            tf.TensorSpec([None], tf.int32, "positions"),
        ],
    )
    archive.write_out(str(directory), verbose=False)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The signatures of an exported model, as functions of named tensors; see `export`."""

    classify: Callable[..., dict[str, tf.Tensor]]
    explain: Callable[..., dict[str, tf.Tensor]]


def load(directory: Path) -> Exported:
    """Returns the signatures of the SavedModel in a directory."""
    loaded = tf.saved_model.load(str(directory))
    signatures = loaded.signatures
    for signature in signatures.values():
        signature.model = loaded  # a signature alone does not keep the variables alive
    return Exported(classify=signatures["serving_default"], explain=signatures["explain"])


def versions() -> dict[str, str]:
    """Returns the releases that decide what a training computes, by package."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
