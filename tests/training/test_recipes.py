import pytest

from core.errors import UserError
from training import architectures
from training.recipes import RECIPES, quick_name, recipe_named, with_epochs


def test_classes_are_in_the_order_of_the_outputs() -> None:
    assert recipe_named("coronet-4class").classes == ("covid", "normal", "bacterial", "viral")
    assert recipe_named("cnn-dubey").classes == ("normal", "covid")


def test_an_unknown_recipe_is_an_error_that_names_the_known() -> None:
    with pytest.raises(UserError, match=r"'vgg'.*coronet-4class"):
        recipe_named("vgg")


@pytest.mark.parametrize(
    ("epochs", "expected"), [("", 30), ("default=2", 2), ("cnn-dubey=5,default=2", 5), ("7", 7)]
)
def test_epochs_can_be_another_number(epochs: str, expected: int) -> None:
    assert with_epochs(RECIPES["cnn-dubey"], epochs).epochs == expected


@pytest.mark.parametrize("epochs", ["0", "cnn-dubey=0", "default=1.5", "resnet=3", "default=-1"])
def test_what_is_no_number_of_epochs_is_an_error(epochs: str) -> None:
    with pytest.raises(UserError):
        with_epochs(RECIPES["cnn-dubey"], epochs)


def test_every_system_of_the_papers_is_there() -> None:
    assert set(RECIPES) == {
        "coronet-4class", "coronet-3class", "coronet-2class", "resnet50-10fold", "cnn-dubey",
        "soares-xception", "soares-resnet", "soares-vgg16",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_what_is_published_is_of_the_recipes_classes(recipe) -> None:
    assert recipe.published
    assert set(recipe.subset) <= set(recipe.classes)
    for published in recipe.published:
        assert all(0 < figure <= 1 for figure in published.figures.values())
    own = recipe.published[0].figures
    assert all(name.endswith("accuracy") or name.split()[0] in recipe.classes for name in own)


def test_the_protocols_are_the_papers() -> None:
    coronet, resnet = RECIPES["coronet-4class"], RECIPES["resnet50-10fold"]
    assert (coronet.input_size, coronet.batch, coronet.epochs) == ((150, 150), 10, 80)
    assert (coronet.learning_rate, coronet.frozen, coronet.protocol) == (1e-4, False, "80/20")
    assert coronet.subset == {"covid": 284, "normal": 310, "bacterial": 330, "viral": 327}
    assert (resnet.input_size, resnet.epochs, resnet.protocol) == ((224, 224), 30, "10-fold")
    assert resnet.subset == {"covid": 74, "normal": 73}
    for name in ("soares-xception", "soares-resnet", "soares-vgg16"):
        soares = RECIPES[name]
        assert (soares.input_size, soares.batch, soares.epochs) == ((237, 237), 15, 80)
        assert (soares.learning_rate, soares.frozen, soares.pretrained) == (1e-3, True, True)
        assert soares.subset == {"covid": 175, "normal": 100, "other": 100}


def test_variants_are_named_by_what_they_add() -> None:
    recipe = recipe_named("coronet-4class+lungs+balanced")
    assert (recipe.view, recipe.augmented, recipe.balanced) == ("lungs", False, True)
    assert recipe.needs_lungs
    mixing = recipe_named("cnn-dubey+mixed-surroundings+augmented")
    assert (mixing.mixed, mixing.view, mixing.augmented, mixing.needs_lungs) == (
        True, "full", True, True,
    )  # fmt: skip
    assert not recipe_named("cnn-dubey+augmented").needs_lungs
    assert recipe.classes == RECIPES["coronet-4class"].classes
    assert with_epochs(recipe, "coronet-4class=3,default=9").epochs == 3


@pytest.mark.parametrize(
    "name", ["coronet-4class+balanced", "resnet50-10fold", "soares-vgg16", "cnn-dubey+lungs"]
)
def test_a_first_look_is_smaller_and_shorter_and_says_so(name: str) -> None:
    whole, quick = recipe_named(name), recipe_named(quick_name(name))
    assert quick.name == f"{name}+quick"
    assert quick.quick
    assert not whole.quick
    assert quick.input_size < whole.input_size
    assert quick.epochs < whole.epochs
    assert quick.batch <= whole.batch
    assert (quick.base, quick.head, quick.task) == (whole.base, whole.head, whole.task)
    assert (quick.view, quick.balanced) == (whole.view, whole.balanced)
    assert quick_name(quick.name) == quick.name
    architectures.build(quick, "none", 0)


def test_epochs_of_a_variant_go_before_those_of_its_recipe() -> None:
    recipe = recipe_named("cnn-dubey+lungs+quick")
    assert with_epochs(recipe, "cnn-dubey=3,cnn-dubey+lungs=4").epochs == 4
    assert with_epochs(recipe, "cnn-dubey=3").epochs == 3
    assert with_epochs(recipe, "default=2").epochs == 2
    assert with_epochs(recipe, "coronet-4class=2").epochs == recipe.epochs


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cnn-dubey+heart", "unknown variant"),
        ("cnn-dubey+balanced+lungs", "in this order"),
        ("cnn-dubey+lungs+lungs", "in this order"),
        ("soares-vgg16+augmented", "augmented would"),
        ("soares-vgg16+mixed-surroundings", "mixed-surroundings would"),
        ("cnn-dubey+augmented+mixed-surroundings", "in this order"),
        ("vgg+lungs", "unknown recipe 'vgg'"),
    ],
)
def test_what_is_no_variant_is_said(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe_named(name)
