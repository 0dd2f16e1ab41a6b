"""Overlays heat maps on radiographs, with a scale for their colours."""

import numpy as np
from markupsafe import Markup
from PIL import Image

# Nine even steps of matplotlib's Inferno, whose lightness rises evenly and which colour-blind people can
# read.
_STOPS = (
    "#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#fcffa4",
)  # fmt: skip
_COLOURS = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in _STOPS])
_OPACITY = 0.6


def fitted(heat_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a map to the size of an image.

    Args:
      heat_map: float32 [rows, columns] in 0..1, from an explainer.
      size: (height, width) of the image in pixels.

    Returns:
      float32 [height, width] in 0..1, interpolated bilinearly.
    """
    from training.without_keras import tf  # a page with only the scale needs no TensorFlow

    resized = tf.image.resize(heat_map[..., np.newaxis], size)
    return np.asarray(resized[..., 0])


def layer(heat_map: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Returns a heat map as a layer over a picture: transparent where the map is 0, opaque where it is 1.

    Args:
      heat_map: float32 [rows, columns] in 0..1.
      size: (width, height) in pixels.

    Returns:
      RGBA, of that size.
    """
    heat = fitted(heat_map, size[::-1])
    steps = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(heat, steps, _COLOURS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack([*channels, 255 * heat], axis=-1).round().astype(np.uint8))


def overlay(picture: Image.Image, heat_map: np.ndarray) -> Image.Image:
    """Returns a grey picture with a half-transparent heat map over it, as RGB of the same size."""
    above = layer(heat_map, picture.size)
    above.putalpha(above.getchannel("A").point(lambda alpha: round(_OPACITY * alpha)))
    return Image.alpha_composite(picture.convert("RGBA"), above).convert("RGB")


def colour_bar() -> Markup:
    """Returns the scale of `overlay`, as HTML."""
    stops = ", ".join(_STOPS)
    return Markup(
        '<span class="colour-bar"><span>no evidence for the class</span>'
        f'<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        "<span>most</span></span>"
    )
