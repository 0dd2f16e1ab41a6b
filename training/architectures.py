"""The networks. Each takes grey pixels in 0..255 and scales them to what it wants in a first layer."""

from collections.abc import Callable
from pathlib import Path

import keras
from keras import layers

from components.errors import UserError
from training.recipes import Recipe

IMAGENET, NONE = "imagenet", "none"


def build(recipe: Recipe, weights: str, seed: int) -> keras.Model:
    """Builds a recipe's network under the dtype policy in force.

    Args:
      recipe: names the architecture, the input size and the classes.
      weights: where a pretrained base begins: `imagenet` (Keras downloads them), `none` (random), or
        the path of a weights file of the base in Keras's format. Ignored by recipes that are not
        pretrained.
      seed: of the random initial weights and of dropout.

    Returns:
      a model from float32 [N, height, width, 1] in 0..255 to float32 [N, classes] that sum to one,
      or, for two classes with a single output, [N, 1]: the probability of the second class.

    Raises:
      UserError: the weights cannot be had.
    """
    keras.utils.set_random_seed(seed + 1)  # tf.data takes a global seed of zero for none
    grey = keras.Input((*recipe.input_size, 1), name="pixels")
    builders: dict[str, Callable[[keras.KerasTensor, Recipe, str], keras.KerasTensor]] = {
        "coronet": _coronet,
        "dubey": _dubey,
    }
    outputs = builders[recipe.architecture](grey, recipe, weights)
    return keras.Model(grey, outputs, name=recipe.name.replace("-", "_"))


def starting_point(recipe: Recipe, weights: str) -> str:
    """Returns in words where training starts, for every place that shows the model's figures."""
    if not recipe.pretrained:
        return "from scratch, as published"
    if weights == NONE:
        return "from scratch: NOT the transfer learning that the paper describes"
    return f"from {'ImageNet weights' if weights == IMAGENET else f'the weights in {weights}'}"


def _coronet(grey: keras.KerasTensor, recipe: Recipe, weights: str) -> keras.KerasTensor:
    """CoroNet: Xception, all of it trained, with a dense head: 33,969,964 parameters at 150 x 150."""
    pixels = layers.Rescaling(1 / 127.5, offset=-1.0)(_three_channels(grey))
    base = _pretrained(keras.applications.Xception, recipe, weights)
    features = layers.Flatten()(base(pixels))
    features = layers.Dropout(0.5)(features)
    features = layers.Dense(256, activation="relu")(features)
    return _softmax(features, recipe)


def _dubey(grey: keras.KerasTensor, recipe: Recipe, weights: str) -> keras.KerasTensor:
    """Dubey's small CNN: 5,631,169 parameters at 224 x 224."""
    features = layers.Rescaling(1 / 255)(_three_channels(grey))
    for filters in (32, 64, 128):
        features = layers.Conv2D(filters, 3, activation="relu")(features)
        features = layers.MaxPooling2D(2)(features)
    features = layers.Dense(64, activation="relu")(layers.Flatten()(features))
    return layers.Dense(1, activation="sigmoid", dtype="float32")(features)


def _three_channels(grey: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Concatenate(name="grey_to_rgb")([grey, grey, grey])


def _softmax(features: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    # In float32 under any policy: half precision loses small probabilities.
    return layers.Dense(len(recipe.classes), activation="softmax", dtype="float32")(features)


def _pretrained(
    application: Callable[..., keras.Model], recipe: Recipe, weights: str
) -> keras.Model:
    shape = (*recipe.input_size, 3)
    if weights == NONE:
        return application(include_top=False, weights=None, input_shape=shape)
    if weights != IMAGENET and not Path(weights).is_file():
        raise UserError(
            f"weights: there is no file {weights}. Give the path of a weights file, "
            f"{IMAGENET!r} or {NONE!r}."
        )
    try:
        return application(include_top=False, weights=weights, input_shape=shape)
    except Exception as error:
        raise UserError(
            f"weights: {recipe.name} cannot start from {weights!r}: {str(error).splitlines()[0]}. "
            f"Where there is no network, give the path of a weights file without the top, or {NONE!r} "
            "to train from scratch (which the report will say)."
        ) from error
