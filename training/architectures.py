"""The networks: a base that maps grey pixels in 0..255 to features, and a head on top of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

from core.artifacts import PRETRAINING
from core.errors import UserError
from core.files import read_json
from training.recipes import Recipe
from training.start_weights import IMAGENET, NONE, cannot_start, pretrained_directory, weights_file

BASE, HEAD = "base", "head"

# The last layer of each base that still has spatial positions, for Grad-CAM.
LAST_CONVOLUTION = {
    "dubey": "last_convolution",
    "resnet50": "conv5_block3_out",
    "vgg16": "block5_conv3",
    "xception": "block14_sepconv2_act",
}


def build(recipe: Recipe, weights: str, seed: int) -> keras.Model:
    """Builds a recipe's network under the dtype policy in force.

    Args:
      recipe: names the base, the head, the input size and the classes.
      weights: of a pretrained base: `imagenet` (downloaded by Keras), `none` (random), the path of a
        weights file of the base in Keras' format, a directory that `pretrain` made, or a directory of
        such directories named after their bases. Ignored by recipes that are not pretrained.
      seed: for random initial weights and dropout.

    Returns:
      a model from float32 [N, height, width, 1] in 0..255 to float32 [N, classes] that sum to one,
      or, for two classes with a single output, [N, 1]: the probability of the second class. Its
      layers `base` and `head` are models; the base of a frozen recipe is not trainable.

    Raises:
      UserError: the weights are not available.
    """
    keras.utils.set_random_seed(seed + 1)  # tf.data treats a global seed of zero as no seed
    base = _base(recipe, weights if recipe.pretrained else NONE)
    base.trainable = not recipe.frozen
    features = keras.Input(base.output_shape[1:], name="features")
    head = keras.Model(features, _HEADS[recipe.head](features, recipe), name=HEAD)
    pixels = keras.Input((*recipe.input_size, 1), name="pixels")
    return keras.Model(pixels, head(base(pixels)), name=re.sub(r"\W", "_", recipe.name))


def starting_point(recipe: Recipe, weights: str) -> str:
    """Returns the starting point of training in words, to be shown with the model's figures."""
    if not recipe.pretrained:
        return "from scratch, as published"
    if weights == NONE:
        return "from scratch: NOT the transfer learning that the paper describes"
    if weights == IMAGENET:
        return "from ImageNet weights, as published"
    made_here = pretrained_directory(recipe, weights)
    if made_here:
        made = read_json(made_here / PRETRAINING)
        return f"from a base pretrained on {made['images']} chest X-rays, NOT on ImageNet"
    return f"from the weights in {Path(weights).name}"


def layer_table(model: keras.Model, recipe: Recipe) -> list[dict[str, Any]]:
    """Returns a network as papers print it: one row per layer; a known base network is one row.

    Returns:
      rows of `layer`, `output` (its shape, without the batch) and `parameters`.
    """
    base, head = model.get_layer(BASE), model.get_layer(HEAD)
    parts = [*(_shown(base) if recipe.base == "dubey" else [base]), *_shown(head)]
    return [
        {
            "layer": recipe.base if part is base else type(part).__name__,
            "output": list(part.output.shape[1:]),
            "parameters": part.count_params(),
        }
        for part in parts
    ]


def _shown(model: keras.Model) -> list[keras.layers.Layer]:
    hidden = (layers.InputLayer, layers.Rescaling, layers.Concatenate)
    return [layer for layer in model.layers if not isinstance(layer, hidden)]


def _base(recipe: Recipe, weights: str) -> keras.Model:
    grey = keras.Input((*recipe.input_size, 1))
    colours = layers.Concatenate(name="grey_to_rgb")([grey, grey, grey])
    if recipe.base == "dubey":
        return keras.Model(grey, _dubey_base(colours), name=BASE)
    application, scaled = _APPLICATIONS[recipe.base]
    try:
        made = application(
            include_top=False,
            weights=IMAGENET if weights == IMAGENET else None,
            input_tensor=scaled(colours),
            # A linear head needs only the mean over positions.
            pooling="avg" if recipe.head == "linear" else None,
        )
        base = keras.Model(made.inputs[0], made.outputs[0], name=BASE)
        if weights not in (IMAGENET, NONE):
            made.load_weights(weights_file(recipe, weights))
    except UserError:
        raise
    except Exception as error:
        raise UserError(cannot_start(recipe, weights, str(error).splitlines()[0])) from error
    return base


def _minus_one_to_one(colours: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Rescaling(1 / 127.5, offset=-1.0)(colours)


def _without_imagenets_mean(colours: keras.KerasTensor) -> keras.KerasTensor:
    # ImageNet's means in the order blue, green, red; the order does not matter for grey pixels.
    return layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68])(colours)


# Each with the pixel scaling that its ImageNet weights expect.
_APPLICATIONS: dict[str, tuple[Callable[..., keras.Model], Callable[..., Any]]] = {
    "resnet50": (keras.applications.ResNet50, _without_imagenets_mean),
    "vgg16": (keras.applications.VGG16, _without_imagenets_mean),
    "xception": (keras.applications.Xception, _minus_one_to_one),
}


def _dubey_base(colours: keras.KerasTensor) -> keras.KerasTensor:
    """Dubey's small CNN: 5,631,169 parameters with its head, at 224 x 224."""
    features = layers.Rescaling(1 / 255)(colours)
    for filters, name in ((32, None), (64, None), (128, LAST_CONVOLUTION["dubey"])):
        features = layers.Conv2D(filters, 3, activation="relu", name=name)(features)
        features = layers.MaxPooling2D(2)(features)
    return features


def _dubey_head(features: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    hidden = layers.Dense(64, activation="relu")(layers.Flatten()(features))
    return layers.Dense(1, activation="sigmoid", dtype="float32")(hidden)


def _coronet_head(features: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    """CoroNet's dense head: 33,969,964 parameters with Xception, at 150 x 150 and four classes."""
    hidden = layers.Dropout(0.5)(layers.Flatten()(features))
    return _softmax(layers.Dense(256, activation="relu")(hidden), recipe)


def _softmax(features: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    # In float32 under any policy: half precision loses small probabilities.
    return layers.Dense(len(recipe.classes), activation="softmax", dtype="float32")(features)


_HEADS: dict[str, Callable[[keras.KerasTensor, Recipe], keras.KerasTensor]] = {
    "coronet": _coronet_head,
    "dubey": _dubey_head,
    "linear": _softmax,
}
