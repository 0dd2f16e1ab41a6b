"""Heat maps over radiographs, and the scale that says what their colours mean."""

import matplotlib
import numpy as np
from markupsafe import Markup
from PIL import Image

from training.gradcam import fitted

# Of even lightness steps, and legible to colour-blind eyes.
_COLOURS = matplotlib.colormaps["inferno"]
_OPACITY = 0.6


def overlay(picture: Image.Image, heat_map: np.ndarray) -> Image.Image:
    """Returns a picture with a heat map over it: clear where the map is 0, covered where it is 1.

    Args:
      picture: grey.
      heat_map: float32 [rows, columns] in 0..1.

    Returns:
      RGB, of the picture's size.
    """
    heat = fitted(heat_map, (picture.height, picture.width))[..., np.newaxis]
    grey = np.asarray(picture.convert("RGB"), np.float32)
    colour = _COLOURS(heat[..., 0])[..., :3] * 255
    mixed = grey + _OPACITY * heat * (colour - grey)
    return Image.fromarray(mixed.round().astype(np.uint8))


def colour_bar() -> Markup:
    """Returns the scale of `overlay`, as HTML."""
    stops = ", ".join(matplotlib.colors.to_hex(_COLOURS(step / 8)) for step in range(9))
    return Markup(
        '<span class="colour-bar"><span>nothing speaks for the class</span>'
        f'<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        "<span>most</span></span>"
    )
