"""Exports a model: a SavedModel that maps the bytes of image files to probabilities of named classes."""

import functools
import platform
from importlib.metadata import version
from pathlib import Path

import keras
import tensorflow as tf

from core.errors import UserError
from core.progress import Progress
from training import architectures, gradcam, ood
from training.recipes import Recipe
from training.views import to_pixels

_PACKAGES = ("cxrflow", "tensorflow", "keras", "numpy")
# A signature that calls another one then holds a call, not a second copy of the network.
_traced_once = functools.partial(tf.function, autograph=False)


def export(
    model: keras.Model,
    recipe: Recipe,
    directory: Path,
    *,
    temperature: float = 1.0,
    segmenter: keras.Model | None = None,
    known: ood.Known | None = None,
) -> None:
    """Writes a SavedModel that decodes, preprocesses and classifies image files by itself.

    Its signatures:
      `serving_default`: from `image_bytes`, string [N] (JPEG or PNG files, grey or in colour, 8 or 16 bits,
        with or without alpha), to `probabilities`, float32 [N, classes], each row summing to one;
        `classes`, string [N, classes], their names; and `ood_score`, float32 [N]: how far the image is from
        the training images; over 1 the probabilities mean nothing (see `training.ood`). A TensorFlow server
        needs no other signature.
      `preprocess`: from `image_bytes`, scalar string, to `pixels`, float32 [height, width, 1] in
        0..255: what the network sees of one file.
      `classify`: from `pixels`, float32 [N, height, width, 1], to the outputs of `serving_default`. With
        `preprocess`, a server can decode and compute in parallel.
      `explain`: from `pixels` and `positions` in `classes`, int32 [N], or -1 for the most probable, to
        `heat_maps`, float32 [N, rows, columns] (see `training.gradcam`), `explained`, string [N], the
        classes' names, and the outputs of `serving_default`.

    Args:
      model: see `architectures.build`; in float32.
      directory: to create.
      temperature: of the softmax that gives the probabilities; see `training.calibration`.
      segmenter: finds the lungs, if the recipe's view needs it; it becomes part of the export.
      known: for the out-of-distribution score; if None, every score is 0.
    """
    names = tf.constant(recipe.classes)
    heat_maps = gradcam.explainer(model, recipe)
    base, head = model.get_layer(architectures.BASE), model.get_layer(architectures.HEAD)
    hidden, last = keras.Model(head.inputs[0], head.layers[-1].input), head.layers[-1]

    @_traced_once
    def preprocess(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"pixels": to_pixels(image_bytes, recipe, segmenter)}

    @_traced_once
    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        seen = hidden(base(pixels, training=False), training=False)
        probabilities = last(seen)
        if probabilities.shape[-1] == 1:
            probabilities = tf.concat([1.0 - probabilities, probabilities], axis=-1)
        if temperature != 1.0:
            logits = tf.math.log(tf.maximum(probabilities, 1e-7)) / temperature
            probabilities = tf.nn.softmax(logits)
        return {
            "probabilities": probabilities,
            "classes": tf.tile(names[tf.newaxis], [tf.shape(pixels)[0], 1]),
            "ood_score": ood_score(tf.reshape(seen, (tf.shape(pixels)[0], -1))),
        }

    def ood_score(seen: tf.Tensor) -> tf.Tensor:
        if known is None:
            return tf.zeros(tf.shape(seen)[:1])
        apart = (seen @ known.whitening)[:, tf.newaxis] - known.means[tf.newaxis]
        return tf.reduce_min(tf.norm(apart, axis=-1), axis=1) / known.threshold

    def predict(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(
            lambda content: preprocess(content)["pixels"],
            image_bytes,
            fn_output_signature=tf.TensorSpec((*recipe.input_size, 1), tf.float32),
        )
        answer: dict[str, tf.Tensor] = classify(pixels)
        return answer

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
    if segmenter:
        archive.track(segmenter)
    with Progress("exporting the model"):
        archive.add_endpoint("serving_default", predict, [files])
        archive.add_endpoint(
            "preprocess", preprocess, [tf.TensorSpec([], tf.string, "image_bytes")]
        )
        archive.add_endpoint("classify", classify, [pixels])
        archive.add_endpoint("explain", explain, [pixels, positions])
        archive.write_out(str(directory), verbose=False)


def restore(model: keras.Model, directory: Path) -> None:
    """Sets a model's weights to those of an exported model of the same recipe.

    The export may have more weights after them: those of its lung segmenter.

    Args:
      model: see `architectures.build`.
      directory: of the SavedModel.

    Raises:
      UserError: the exported model is another network.
    """
    exported = list(tf.saved_model.load(str(directory)).variables)[: len(model.variables)]
    if [tuple(value.shape) for value in exported] != [tuple(own.shape) for own in model.variables]:
        raise UserError(
            f"{directory}: its model has other layers; training cannot continue from it"
        )
    for variable, value in zip(model.variables, exported, strict=True):
        if not variable.path.endswith("seed_generator_state"):
            variable.assign(value.numpy())


def versions() -> dict[str, str]:
    """Returns the releases that determine the result of a training, by package."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
