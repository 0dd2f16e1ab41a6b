from pathlib import Path

import numpy as np
import pytest

from components.errors import UserError
from training.architectures import NONE, build, starting_point
from training.recipes import recipe_named


@pytest.mark.parametrize(
    ("name", "parameters"), [("coronet-4class", 33_969_964), ("cnn-dubey", 5_631_169)]
)
def test_the_networks_have_exactly_the_published_parameters(name: str, parameters: int) -> None:
    recipe = recipe_named(name)
    model = build(recipe, NONE, seed=0)
    assert model.count_params() == parameters
    grey = np.random.default_rng(0).uniform(0, 255, (2, *recipe.input_size, 1)).astype("float32")
    probabilities = model(grey, training=False).numpy()
    assert probabilities.shape == (2, 4 if name == "coronet-4class" else 1)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


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
