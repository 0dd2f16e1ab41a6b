"""Grad-CAM: shows where in an image the evidence for a class is.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: "Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization", arXiv:1610.02391.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from training.architectures import BASE, HEAD, LAST_CONVOLUTION
from training.recipes import Recipe

# From pixels [N, height, width, 1] and classes int32 [N] to maps [N, rows, columns] in 0..1.
Explainer = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def explainer(model: keras.Model, recipe: Recipe) -> Explainer:
    """Returns a function that explains a batch of images, each for its own class.

    Args:
      model: see `architectures.build`; in float32.
      recipe: of the model; its base determines the layer.

    Returns:
      a function of TensorFlow operations, from pixels, float32 [N, height, width, 1] in 0..255, and
      positions in `recipe.classes`, int32 [N], to maps, float32 [N, rows, columns], at the resolution of
      the last convolution: not negative, with a maximum of 1 if there is any evidence for the class, else 0
      everywhere.
    """
    base, head = model.get_layer(BASE), model.get_layer(HEAD)
    layer = base.get_layer(LAST_CONVOLUTION[recipe.base])
    watched = keras.Model(base.inputs[0], [layer.output, base.outputs[0]])
    hidden = keras.Model(head.inputs[0], head.layers[-1].input)
    last = head.layers[-1]

    def explain(pixels: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        pixels = tf.convert_to_tensor(pixels)
        with tf.GradientTape() as tape:
            tape.watch(pixels)  # else a frozen base would not be recorded
            activations, features = watched(pixels, training=False)
            # The paper differentiates the score before the softmax, or the sigmoid.
            scores = hidden(features, training=False) @ last.kernel + last.bias
            if scores.shape[-1] == 1:
                scores = tf.concat([-scores, scores], axis=-1)
            score = tf.reduce_sum(tf.gather(scores, classes, axis=1, batch_dims=1))
        gradients = tape.gradient(score, activations)
        importance = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        maps = tf.nn.relu(tf.reduce_sum(importance * activations, axis=-1))
        return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=(1, 2), keepdims=True))

    return explain
