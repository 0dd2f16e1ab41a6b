"""The exported model: a SavedModel from the bytes of image files to probabilities of named classes."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import keras
import tensorflow as tf

from components.errors import UserError
from training import gradcam
from training.preprocess import to_input
from training.recipes import Recipe

SAVED_MODEL = "saved_model"
# Beside the SavedModel: where it comes from.
CARD = "model.json"

_PACKAGES = ("cxrflow", "tensorflow", "keras", "numpy")


def export(model: keras.Model, recipe: Recipe, directory: Path) -> None:
    """Writes a SavedModel that decodes, preprocesses and classifies image files by itself.

    Its signatures:
      `serving_default`: from `image_bytes`, string [N]: JPEG or PNG files, grey or in colour, 8 or 16
        bits, with or without alpha, to `probabilities`, float32 [N, classes], each row summing to
        one, and `classes`, string [N, classes], their names. All that a TensorFlow server needs.
      `preprocess`: from `image_bytes`, scalar string, to `pixels`, float32 [height, width, 1] in
        0..255: what the network is shown of one file.
      `classify`: from `pixels`, float32 [N, height, width, 1], to what `serving_default` returns. With
        `preprocess` the two halves of it, for a server that decodes and computes side by side.
      `explain`: from `pixels` and `positions` in `classes`, int32 [N], or -1 for the most probable, to
        `heat_maps`, float32 [N, rows, columns] (see `training.gradcam`), `explained`, string [N], the
        classes' names, and what `serving_default` returns.

    Args:
      model: as `architectures.build` makes it, in float32.
      directory: to be made.
    """
    names = tf.constant(recipe.classes)
    heat_maps = gradcam.explainer(model, recipe)

    def preprocess(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"pixels": to_input(image_bytes, recipe.input_size)}

    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(pixels, training=False)
        if probabilities.shape[-1] == 1:
            probabilities = tf.concat([1.0 - probabilities, probabilities], axis=-1)
        return {
            "probabilities": probabilities,
            "classes": tf.tile(names[tf.newaxis], [tf.shape(pixels)[0], 1]),
        }

    def predict(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(
            tf.map_fn(
                lambda content: to_input(content, recipe.input_size),
                image_bytes,
                fn_output_signature=tf.TensorSpec((*recipe.input_size, 1), tf.float32),
            )
        )

    def explain(pixels: tf.Tensor, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = classify(pixels)
        probable = tf.argmax(answer["probabilities"], axis=-1, output_type=tf.int32)
        positions = tf.where(positions < 0, probable, positions)
        return {
            **answer,
            "heat_maps": heat_maps(pixels, positions),
            "explained": tf.gather(names, positions),
        }

    files = tf.TensorSpec([None], tf.string, "image_bytes")
    pixels = tf.TensorSpec([None, *recipe.input_size, 1], tf.float32, "pixels")
    positions = tf.TensorSpec([None], tf.int32, "positions")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", predict, [files])
    archive.add_endpoint("preprocess", preprocess, [tf.TensorSpec([], tf.string, "image_bytes")])
    archive.add_endpoint("classify", classify, [pixels])
    archive.add_endpoint("explain", explain, [pixels, positions])
    archive.write_out(str(directory), verbose=False)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The signatures of an exported model, as functions of named tensors; see `export`."""

    predict: Callable[..., dict[str, tf.Tensor]]
    preprocess: Callable[..., dict[str, tf.Tensor]]
    classify: Callable[..., dict[str, tf.Tensor]]
    explain: Callable[..., dict[str, tf.Tensor]]


def load(directory: Path) -> Exported:
    """Returns the signatures of the SavedModel in a directory.

    Raises:
      UserError: it has not all of them.
    """
    loaded = tf.saved_model.load(str(directory))
    named = {"predict": "serving_default"}
    signatures = {}
    for field in fields(Exported):
        name = named.get(field.name, field.name)
        if name not in loaded.signatures:
            raise UserError(
                f"{directory}: the model has no signature {name!r}; it was exported by another "
                "release. Export it again: `cxrflow run`."
            )
        signatures[field.name] = loaded.signatures[name]
        signatures[field.name].model = loaded  # a signature alone does not keep variables alive
    return Exported(**signatures)


def versions() -> dict[str, str]:
    """Returns the releases that decide what a training computes, by package."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
