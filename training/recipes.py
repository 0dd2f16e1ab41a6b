"""What is trained and how: a frozen dataclass for each published system, and variants of them.

To add a recipe, add it here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from core.divisions import divisions
from core.errors import UserError
from core.labels import BACTERIAL, COVID, NORMAL, VIRAL
from core.settings import DEFAULT, parse_numbers


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published figures, to be shown beside ours.

    Attributes:
      where: the version of the paper, or another source of the figures; empty if there is only one.
      figures: fractions by name: `accuracy`, `validation accuracy`, or a class and `precision`, `recall`,
        `specificity` or `f1`, e.g. `covid recall`.
    """

    where: str = ""
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A system as its paper describes it.

    Attributes:
      name: as used in `--recipes`.
      paper: authors, title, identifier.
      task: the class of each label; the order of first appearance is the order of the model's outputs.
        Images with other labels are left out.
      base: the network that maps pixels to features; see `training.architectures`.
      head: the layers that map features to probabilities; see `training.architectures`.
      input_size: (height, width) in pixels.
      pretrained: whether the paper starts from ImageNet weights.
      frozen: whether only the head is trained.
      learning_rate: of Adam, for a global batch of `batch`.
      batch: images per step, over all replicas together.
      epochs: passes over the training split.
      protocol: how the paper divides its images; see `core.divisions`.
      parameters: of the whole network, trained or not.
      subset: number of images of each class in the paper; empty if unknown.
      published: the paper's own figures.
      ours: what was chosen here because the paper leaves it open.
      view: what the network sees of an image: all of it, or the lungs alone; see `training.views`.
      mixed: whether training images have the surroundings of others in each epoch, so that these tell nothing
        about the class; or, where the network sees the lungs alone, the outline of their lungs; see
        `training.surroundings.mixed`.
      augmented: whether images are augmented in each epoch; see `training.augment`.
      balanced: whether the sources of a class have the same weight; see `data.image_weights`.
      quick: whether it is a first look: small images, few epochs, a learning rate that decays to zero. It
        is then not the network of the paper.
    """

    name: str
    paper: str
    task: Mapping[str, str]
    base: Literal["dubey", "resnet50", "vgg16", "xception"]
    head: Literal["coronet", "dubey", "linear"]
    input_size: tuple[int, int]
    pretrained: bool
    frozen: bool
    learning_rate: float
    batch: int
    epochs: int
    protocol: str
    parameters: int
    subset: Mapping[str, int] = field(default_factory=dict)
    published: tuple[Published, ...]
    ours: str = ""
    view: Literal["full", "lungs"] = "full"
    mixed: bool = False
    augmented: bool = False
    balanced: bool = False
    quick: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return tuple(dict.fromkeys(self.task.values()))

    @property
    def needs_lungs(self) -> bool:
        """Whether a segmenter must find the lungs in its training images."""
        return self.view == "lungs" or self.mixed

    def trials(self, protocol: str) -> tuple[str, ...]:
        """Returns the trainings of a protocol, as the step `train` reads them: `<recipe>@<division>`."""
        return tuple(f"{self.name}@{division}" for division in divisions(protocol))


PNEUMONIA, OTHER = "pneumonia", "other"

_COVID_NET = Published(
    where="COVID-Net CXR3-B (Wang, Lin, Wong 2020), three classes",
    figures={
        "accuracy": 0.933,
        "normal recall": 0.95,
        "normal precision": 0.905,
        "pneumonia recall": 0.94,
        "pneumonia precision": 0.913,
        "covid recall": 0.91,
        "covid precision": 0.989,
    },
)

_CORONET = Recipe(
    name="coronet-4class",
    paper="Khan, Shah, Bhat: CoroNet: A deep neural network for detection and diagnosis of "
    "COVID-19 from chest x-ray images (2020), doi:10.1016/j.cmpb.2020.105581",
    task={label: label for label in (COVID, NORMAL, BACTERIAL, VIRAL)},
    base="xception",
    head="coronet",
    input_size=(150, 150),
    pretrained=True,
    frozen=False,
    learning_rate=1e-4,
    batch=10,
    epochs=80,
    protocol="80/20",
    parameters=33_969_964,
    subset={COVID: 284, NORMAL: 310, BACTERIAL: 330, VIRAL: 327},
    published=(
        Published(
            where="version 3",
            figures={"accuracy": 0.896, "covid precision": 0.93, "covid recall": 0.982},
        ),
        Published(
            where="version 1",
            figures={
                "accuracy": 0.869,
                "covid precision": 0.882,
                "covid recall": 0.967,
                "covid f1": 0.932,
                "normal precision": 0.844,
                "normal recall": 0.915,
                "normal f1": 0.88,
                "bacterial precision": 0.833,
                "bacterial recall": 0.91,
                "bacterial f1": 0.869,
                "viral precision": 0.951,
                "viral recall": 0.696,
                "viral f1": 0.805,
            },
        ),
        _COVID_NET,
    ),
)

_SOARES = Recipe(
    name="soares-vgg16",
    paper="Soares, Soares: Automatic Detection of COVID-19 Cases on X-ray images Using "
    "Convolutional Neural Networks (2020), arXiv:2007.05494",
    task={COVID: COVID, NORMAL: NORMAL, BACTERIAL: OTHER, VIRAL: OTHER},
    base="vgg16",
    head="linear",
    input_size=(237, 237),
    pretrained=True,
    frozen=True,
    learning_rate=1e-3,
    batch=15,
    epochs=80,
    protocol="70/10/20",
    parameters=14_716_227,
    subset={COVID: 175, NORMAL: 100, OTHER: 100},
    published=(
        Published(figures={"validation accuracy": 0.973, "accuracy": 0.973, "covid recall": 1.0}),
    ),
    ours="the head (global average pooling and one dense layer)",
)

_ALL = (
    _CORONET,
    replace(
        _CORONET,
        name="coronet-3class",
        task={COVID: COVID, NORMAL: NORMAL, BACTERIAL: PNEUMONIA, VIRAL: PNEUMONIA},
        parameters=33_969_707,
        subset={COVID: 284, NORMAL: 310, PNEUMONIA: 657},
        published=(Published(figures={"accuracy": 0.95}), _COVID_NET),
        ours="the numbers of images (those of the four classes)",
    ),
    replace(
        _CORONET,
        name="coronet-2class",
        task={COVID: COVID, BACTERIAL: PNEUMONIA, VIRAL: PNEUMONIA},
        parameters=33_969_450,
        subset={COVID: 284, PNEUMONIA: 657},
        published=(Published(figures={"accuracy": 0.971, "covid recall": 1.0}),),
        ours="the numbers of images (those of the four classes)",
    ),
    Recipe(
        name="resnet50-10fold",
        paper="ResNet-50 with its last layers replaced, in 10-fold cross-validation: covid against "
        "normal (2020)",
        task={NORMAL: NORMAL, COVID: COVID},
        base="resnet50",
        head="linear",
        input_size=(224, 224),
        pretrained=True,
        frozen=True,
        learning_rate=1e-3,
        batch=16,
        epochs=30,
        protocol="10-fold",
        parameters=23_591_810,
        subset={COVID: 74, NORMAL: 73},
        published=(
            Published(
                figures={"accuracy": 0.9932, "covid recall": 1.0, "covid specificity": 0.9865}
            ),
        ),
        ours="the new layers (global average pooling and one dense layer), training only these, Adam with a "
        "learning rate of 0.001, batches of 16",
    ),
    Recipe(
        name="cnn-dubey",
        paper="Dubey et al.: a small convolutional network with an upload page for COVID-19 on "
        "chest x-rays (covid against normal)",
        task={NORMAL: NORMAL, COVID: COVID},
        base="dubey",
        head="dubey",
        input_size=(224, 224),
        pretrained=False,
        frozen=False,
        learning_rate=1e-3,
        batch=32,
        epochs=30,
        protocol="80/20",
        parameters=5_631_169,
        published=(Published(figures={"accuracy": 0.989}),),
        ours="Adam with a learning rate of 0.001, batches of 32, 30 epochs",
    ),
    replace(
        _SOARES,
        name="soares-xception",
        base="xception",
        parameters=20_867_627,
        published=(Published(figures={"validation accuracy": 0.959}),),
    ),
    replace(
        _SOARES,
        name="soares-resnet",
        base="resnet50",
        parameters=23_593_859,
        published=(Published(figures={"validation accuracy": 0.946}),),
        ours=f"{_SOARES.ours}, and ResNet-50 among the ResNets",
    ),
    _SOARES,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
# What a run trains by default: a large network for all four labels, and a small one.
CANDIDATES = ("coronet-4class", "cnn-dubey")


# Image side in pixels and epochs for a first look. Xception needs at least 71 pixels. The values of the small
# network are measured (`make bench ONLY=demo`); those of deep networks are chosen for time alone.
_QUICK_SIDE = {"dubey": 64, "resnet50": 64, "vgg16": 64, "xception": 75}
_QUICK_EPOCHS, _QUICK_EPOCHS_OF_A_DEEP_NETWORK, _QUICK_BATCH = 20, 5, 16


def _quick(recipe: Recipe) -> Recipe:
    side = _QUICK_SIDE[recipe.base]
    # The features of a frozen base are computed once, so epochs cost next to nothing.
    light = recipe.frozen or recipe.base == "dubey"
    return replace(
        recipe,
        quick=True,
        input_size=(side, side),
        epochs=_QUICK_EPOCHS if light else _QUICK_EPOCHS_OF_A_DEEP_NETWORK,
        batch=min(recipe.batch, _QUICK_BATCH),
    )


# Not from the papers: `<recipe>+<variant>`, several of them in this order.
QUICK = "quick"
VARIANTS: Mapping[str, Callable[[Recipe], Recipe]] = MappingProxyType(
    {
        "lungs": lambda recipe: replace(recipe, view="lungs"),
        "mixed-surroundings": lambda recipe: replace(recipe, mixed=True),
        "augmented": lambda recipe: replace(recipe, augmented=True),
        "balanced": lambda recipe: replace(recipe, balanced=True),
        QUICK: _quick,
    }
)


def recipe_named(name: str) -> Recipe:
    """Returns a recipe by name.

    Args:
      name: of a published system, or of a variant of it, e.g. `cnn-dubey+lungs+balanced`.

    Raises:
      UserError: there is no such recipe or variant.
    """
    published, *variants = name.split("+")
    if published not in RECIPES:
        raise UserError(f"unknown recipe {published!r}; choose from {', '.join(RECIPES)}")
    if variants != [variant for variant in VARIANTS if variant in variants]:
        raise UserError(
            f"unknown variant {name!r} of {published}; add any of +{', +'.join(VARIANTS)}, in this order"
        )
    recipe = RECIPES[published]
    changing = [variant for variant in ("mixed-surroundings", "augmented") if variant in variants]
    if recipe.frozen and changing:
        raise UserError(
            f"{name}: the base of {published} is frozen and its features are computed once, so its "
            f"images cannot change in each epoch, as +{changing[0]} would have them do"
        )
    for variant in variants:
        recipe = VARIANTS[variant](recipe)
    return replace(recipe, name=name)


def quick_name(name: str) -> str:
    """Returns the name of the quick variant of a recipe: see `Recipe.quick`.

    Args:
      name: as for `recipe_named`.
    """
    return name if QUICK in name.split("+") else f"{name}+{QUICK}"


def with_epochs(recipe: Recipe, epochs: str) -> Recipe:
    """Returns the recipe with another number of epochs.

    Args:
      epochs: epochs by recipe, e.g. `cnn-dubey=5,default=2`, or one number for all; a recipe without a
        number keeps its own.

    Raises:
      UserError: the text cannot be parsed, names an unknown recipe, or has less than one epoch.
    """
    text = f"{DEFAULT}={epochs}" if epochs.isdigit() else epochs
    numbers = parse_numbers("epochs", text, "5, or cnn-dubey=5,default=2")
    for name, number in numbers.items():
        if name != DEFAULT:
            recipe_named(name)
        if number < 1 or number % 1:
            raise UserError(
                f"epochs: {name}={number:g} in {epochs!r} is not a whole number of at least 1"
            )
    number = numbers.get(DEFAULT, recipe.epochs)
    parts = recipe.name.split("+")
    # A number for a variant takes precedence over one for its recipe.
    for end in range(1, len(parts) + 1):
        number = numbers.get("+".join(parts[:end]), number)
    return replace(recipe, epochs=int(number))
