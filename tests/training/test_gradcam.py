import dataclasses

import keras
import numpy as np
import pytest

from training import architectures, gradcam, heat_maps
from training.recipes import RECIPES, recipe_named


@pytest.fixture(scope="module")
def known() -> tuple:
    """A model of two classes: brightness speaks for the second, darkness for the first."""
    recipe = dataclasses.replace(recipe_named("cnn-dubey"), input_size=(16, 16))
    pixels = keras.Input((16, 16, 1))
    split = keras.layers.Conv2D(2, 1, name=architectures.LAST_CONVOLUTION["dubey"])
    base = keras.Model(pixels, split(pixels), name="base")
    split.set_weights([np.array([[[[-1.0, 1.0]]]]), np.array([255.0, 0.0])])
    features = keras.Input((16, 16, 2))
    last = keras.layers.Dense(2, activation="softmax")
    head = keras.Model(features, last(keras.layers.GlobalAveragePooling2D()(features)), name="head")
    last.set_weights([np.eye(2), np.zeros(2)])
    return keras.Model(pixels, head(base(pixels))), recipe


def test_evidence_in_one_quadrant_is_found_there(known) -> None:
    image = np.zeros((1, 16, 16, 1), np.float32)
    image[:, :8, 8:] = 255
    explain = gradcam.explainer(*known)
    dark, bright = explain(np.repeat(image, 2, axis=0), np.array([0, 1], np.int32)).numpy()
    assert np.allclose(bright, image[0, ..., 0] / 255, atol=1e-6)
    assert np.allclose(dark, 1 - image[0, ..., 0] / 255, atol=1e-6)


def test_a_single_output_speaks_for_either_class(tiny_cnn) -> None:
    model = architectures.build(tiny_cnn, "none", 0)
    images = np.random.default_rng(0).uniform(0, 255, (1, 40, 40, 1)).astype(np.float32)
    explain = gradcam.explainer(model, tiny_cnn)
    first, second = (explain(images, np.array([i], np.int32)).numpy()[0] for i in (0, 1))
    assert not ((first > 0) & (second > 0)).any(), "what speaks for one speaks against the other"
    assert first.any()
    assert second.any()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_batch_is_explained_as_each_image_alone(recipe) -> None:
    recipe = dataclasses.replace(recipe, input_size=(96, 96))
    model = architectures.build(recipe, "none", 0)
    images = np.random.default_rng(0).uniform(0, 255, (3, 96, 96, 1)).astype(np.float32)
    classes = np.array([0, 1, 0], np.int32)
    explain = gradcam.explainer(model, recipe)
    together = explain(images, classes).numpy()
    alone = np.concatenate(
        [explain(images[i : i + 1], classes[i : i + 1]).numpy() for i in range(3)]
    )
    assert together.shape[0] == 3
    assert together.min() >= 0
    assert set(together.max(axis=(1, 2)).round(5)) <= {0.0, 1.0}
    assert np.allclose(together, alone, atol=2e-3)


def test_a_map_is_fitted_to_the_image() -> None:
    heat_map = np.zeros((4, 4), np.float32)
    heat_map[0, 3] = 1
    fitted = heat_maps.fitted(heat_map, (80, 120))
    assert fitted.shape == (80, 120)
    assert fitted[:10, 110:].min() > 0.9
    assert fitted[40:].max() == 0
