import pytest

from components.errors import UserError
from training.recipes import RECIPES, recipe_named, with_epochs


def test_classes_are_in_the_order_of_the_outputs() -> None:
    assert recipe_named("coronet-4class").classes == ("covid", "normal", "bacterial", "viral")
    assert recipe_named("cnn-dubey").classes == ("normal", "covid")


def test_an_unknown_recipe_is_an_error_that_names_the_known() -> None:
    with pytest.raises(UserError, match=r"'vgg'.*coronet-4class"):
        recipe_named("vgg")


@pytest.mark.parametrize(
    ("epochs", "expected"), [("", 30), ("default=2", 2), ("cnn-dubey=5,default=2", 5)]
)
def test_epochs_can_be_another_number(epochs: str, expected: int) -> None:
    assert with_epochs(RECIPES["cnn-dubey"], epochs).epochs == expected


@pytest.mark.parametrize("epochs", ["5", "cnn-dubey=0", "default=1.5", "resnet=3", "default=-1"])
def test_what_is_no_number_of_epochs_is_an_error(epochs: str) -> None:
    with pytest.raises(UserError):
        with_epochs(RECIPES["cnn-dubey"], epochs)
