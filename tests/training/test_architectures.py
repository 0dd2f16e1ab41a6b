from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from core.errors import UserError
from training.architectures import NONE, build, layer_table, starting_point
from training.recipes import RECIPES, recipe_named

# Parameters in all, of them trained.
PARAMETERS = {
    "coronet-4class": (33_969_964, 33_915_436),
    "coronet-3class": (33_969_707, 33_915_179),
    "coronet-2class": (33_969_450, 33_914_922),
    "resnet50-10fold": (23_591_810, 2 * 2049),
    "cnn-dubey": (5_631_169, 5_631_169),
    "soares-xception": (20_867_627, 3 * 2049),
    "soares-resnet": (23_593_859, 3 * 2049),
    "soares-vgg16": (14_716_227, 3 * 513),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_the_networks_have_exactly_the_published_parameters(recipe) -> None:
    model = build(recipe, NONE, seed=0)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert (model.count_params(), trained) == PARAMETERS[recipe.name]
    assert recipe.parameters == model.count_params()
    grey = np.random.default_rng(0).uniform(0, 255, (2, *recipe.input_size, 1)).astype("float32")
    probabilities = model(grey, training=False).numpy()
    assert probabilities.shape == (2, 1 if recipe.head == "dubey" else len(recipe.classes))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_dubeys_layers_are_the_papers_line_by_line() -> None:
    recipe = recipe_named("cnn-dubey")
    rows = layer_table(build(recipe, NONE, seed=0), recipe)
    assert [(row["layer"], tuple(row["output"]), row["parameters"]) for row in rows] == [
        ("Conv2D", (222, 222, 32), 896),
        ("MaxPooling2D", (111, 111, 32), 0),
        ("Conv2D", (109, 109, 64), 18_496),
        ("MaxPooling2D", (54, 54, 64), 0),
        ("Conv2D", (52, 52, 128), 73_856),
        ("MaxPooling2D", (26, 26, 128), 0),
        ("Flatten", (86_528,), 0),
        ("Dense", (64,), 5_537_856),
        ("Dense", (1,), 65),
    ]


def test_a_plain_keras_weights_file_of_the_base_is_taken(tmp_path: Path) -> None:
    recipe = replace(recipe_named("soares-vgg16"), input_size=(32, 32))
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    plain.save_weights(tmp_path / "vgg16.weights.h5")
    model = build(recipe, str(tmp_path / "vgg16.weights.h5"), seed=3)
    ours = model.get_layer("base").get_layer("block3_conv2").get_weights()
    theirs = plain.get_layer("block3_conv2").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert "vgg16.weights.h5" in starting_point(recipe, str(tmp_path / "vgg16.weights.h5"))


def rescaling(base: keras.Model) -> keras.layers.Layer:
    return next(layer for layer in base.layers if isinstance(layer, keras.layers.Rescaling))


def test_pixels_are_scaled_as_imagenets_weights_expect() -> None:
    grey = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 1)).astype("float32")
    colours = np.repeat(grey, 3, axis=-1)
    for name, application in (
        ("soares-vgg16", keras.applications.vgg16),
        ("soares-resnet", keras.applications.resnet),
    ):
        base = build(replace(recipe_named(name), input_size=(32, 32)), NONE, 0).get_layer("base")
        scaled = keras.Model(base.input, rescaling(base).output)
        assert np.allclose(scaled(grey), application.preprocess_input(colours.copy()), atol=1e-4)
    recipe = replace(recipe_named("soares-xception"), input_size=(71, 71))
    base = build(recipe, NONE, 0).get_layer("base")
    scaled = keras.Model(base.input, rescaling(base).output)
    grey = np.random.default_rng(0).uniform(0, 255, (1, 71, 71, 1)).astype("float32")
    expected = keras.applications.xception.preprocess_input(np.repeat(grey, 3, axis=-1))
    assert np.allclose(scaled(grey), expected, atol=1e-5)


def test_the_seed_decides_the_initial_weights(tiny_cnn) -> None:
    first, again, other = (build(tiny_cnn, NONE, seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_weights_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"no file nowhere\.h5"):
        build(recipe_named("coronet-4class"), "nowhere.h5", 0)


def test_a_file_that_holds_no_weights_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "base.weights.h5"
    file.write_text("not weights")
    with pytest.raises(UserError, match=r"cannot start from.*or 'none'"):
        build(recipe_named("coronet-4class"), str(file), 0)


def test_from_scratch_is_never_called_transfer_learning() -> None:
    assert "NOT the transfer learning" in starting_point(recipe_named("coronet-4class"), NONE)
    assert starting_point(recipe_named("cnn-dubey"), NONE) == "from scratch, as published"
