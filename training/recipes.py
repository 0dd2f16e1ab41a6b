"""What is trained and how: one frozen dataclass a published system. Adding a recipe is adding it here."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from components.errors import UserError
from components.labels import BACTERIAL, COVID, NORMAL, VIRAL
from components.settings import DEFAULT, parse_numbers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A system as its paper describes it.

    Attributes:
      name: as given to `--recipes`.
      paper: authors, title, identifier.
      task: the class that each label belongs to; the order of first appearance is the order of the
        model's outputs. Images of other labels are left out.
      architecture: a function of `training.architectures`, by name.
      input_size: (height, width) in pixels.
      pretrained: whether the paper starts from ImageNet weights.
      learning_rate: of Adam, for a global batch of `batch`.
      batch: images a step, over all replicas together.
      epochs: passes over the training split.
      published: the paper's own figures, to be shown beside ours, as fractions.
    """

    name: str
    paper: str
    task: Mapping[str, str]
    architecture: Literal["coronet", "dubey"]
    input_size: tuple[int, int]
    pretrained: bool
    learning_rate: float
    batch: int
    epochs: int
    published: Mapping[str, float]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return tuple(dict.fromkeys(self.task.values()))


_ALL = (
    Recipe(
        name="coronet-4class",
        paper="Khan, Shah, Bhat: CoroNet: A deep neural network for detection and diagnosis of "
        "COVID-19 from chest x-ray images (2020), doi:10.1016/j.cmpb.2020.105581",
        task=MappingProxyType({label: label for label in (COVID, NORMAL, BACTERIAL, VIRAL)}),
        architecture="coronet",
        input_size=(150, 150),
        pretrained=True,
        learning_rate=1e-4,
        batch=10,
        epochs=80,
        published=MappingProxyType(
            {"accuracy": 0.896, "covid precision": 0.93, "covid recall": 0.982}
        ),
    ),
    Recipe(
        name="cnn-dubey",
        paper="Dubey et al.: a small convolutional network with an upload page for COVID-19 on "
        "chest x-rays (covid against normal)",
        task=MappingProxyType({NORMAL: NORMAL, COVID: COVID}),
        architecture="dubey",
        input_size=(224, 224),
        pretrained=False,
        learning_rate=1e-3,
        batch=32,
        epochs=30,
        published=MappingProxyType({"accuracy": 0.989}),
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})


def recipe_named(name: str) -> Recipe:
    """Returns a recipe by name.

    Raises:
      UserError: there is none of that name.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def with_epochs(recipe: Recipe, epochs: str) -> Recipe:
    """Returns the recipe with another number of epochs.

    Args:
      epochs: epochs by recipe, e.g. `cnn-dubey=5,default=2`; without a number for it, the recipe
        keeps its own.

    Raises:
      UserError: the text cannot be read so, or names no recipe or less than one epoch.
    """
    numbers = parse_numbers("epochs", epochs)
    for name, number in numbers.items():
        if name != DEFAULT:
            recipe_named(name)
        if number < 1 or number % 1:
            raise UserError(f"epochs: {name}={number:g} in {epochs!r} is no number of epochs")
    number = numbers.get(recipe.name, numbers.get(DEFAULT, recipe.epochs))
    return dataclasses.replace(recipe, epochs=int(number))
